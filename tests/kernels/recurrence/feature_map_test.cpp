#include "kernels/recurrence/feature_map.hpp"

#include <cmath>

#include "kernels/kernel_test.hpp"

namespace switchyard::test {
namespace {

using kernels::FeatureMap;

double silu(double x) {
  return x / (1 + std::exp(-x));
}

Doubles mapped(FeatureMap map, const Doubles& x, std::size_t width) {
  Doubles y;
  for (std::size_t head = 0; head < x.size(); head += width) {
    double squares = 0, plain = 0;
    for (std::size_t i = head; i < head + width; ++i) {
      squares += silu(x[i]) * silu(x[i]);
      plain += x[i] * x[i];
    }
    for (std::size_t i = head; i < head + width; ++i) {
      if (map == FeatureMap::identity) y.push_back(x[i]);
      if (map == FeatureMap::silu) y.push_back(silu(x[i]));
      if (map == FeatureMap::elu_plus_one) y.push_back(x[i] > 0 ? x[i] + 1 : std::exp(x[i]));
      if (map == FeatureMap::silu_unit) y.push_back(silu(x[i]) / std::sqrt(squares + 1e-6));
      if (map == FeatureMap::unit) y.push_back(x[i] / std::sqrt(plain + 1e-6));
    }
  }
  return y;
}

// Three heads of the case's width.
void for_each_map(const std::function<void(FeatureMap, const Case&)>& body) {
  for (const FeatureMap map : {FeatureMap::identity, FeatureMap::silu, FeatureMap::elu_plus_one,
                               FeatureMap::silu_unit, FeatureMap::unit})
    for_each_case([&](const Case& c) {
      SCOPED_TRACE(static_cast<int>(map));
      body(map, c);
    });
}

TEST(FeatureMapTest, ForwardIsTheFormulaAlsoInPlace) {
  for_each_map([](FeatureMap map, const Case& c) {
    const Operand x(c.dtype, c.rows, 3 * c.cols, 1, c.gap),
        y(c.dtype, c.rows, 3 * c.cols, 2, c.gap);
    const Doubles wanted = mapped(map, x.values(), static_cast<std::size_t>(c.cols));
    kernels::feature_map_forward(map, x, c.cols, y);
    expect_close(y, wanted, tolerance_of(c.dtype));
    if (map == FeatureMap::identity) return;
    kernels::feature_map_forward(map, x, c.cols, x);
    EXPECT_EQ(x.values(), y.values());
    EXPECT_TRUE(x.gaps_untouched());
  });
}

TEST(FeatureMapTest, BackwardIsTheGradientAlsoInPlace) {
  for_each_map([](FeatureMap map, const Case& c) {
    if (c.cols > 50) return;  // finite differences take long
    const Operand x(c.dtype, c.rows, 3 * c.cols, 1, c.gap),
        dx(c.dtype, c.rows, 3 * c.cols, 3, c.gap);
    const Operand dy(c.dtype, c.rows, 3 * c.cols, 2, c.gap);
    const Doubles wanted = reference::numerical_gradient(
        [&](const Doubles& at) {
          return reference::dot(mapped(map, at, static_cast<std::size_t>(c.cols)), dy.values());
        },
        x.values());
    kernels::feature_map_backward(map, dy, x, c.cols, dx);
    // The length of a head of one element hardly depends on it: what is left is a difference.
    expect_close(dx, wanted, c.cols == 1 ? 1e-2 : 4 * tolerance_of(c.dtype));
    if (map == FeatureMap::identity) return;
    kernels::feature_map_backward(map, dy, x, c.cols, dy);
    EXPECT_EQ(dy.values(), dx.values());
  });
}

// The features' product is the Taylor polynomial of e^{x . y / sqrt(width)}, and the gradient that
// of the features as they are.
TEST(FeatureMapTest, TaylorIsThePolynomialOfTheProductAndItsGradient) {
  for (const DType type : {DType::f32, DType::bf16})
    for (const std::int64_t width : {1, 2, 5, 16}) {
      constexpr std::int64_t rows = 3, heads = 2;
      const std::int64_t wide = kernels::feature_width(FeatureMap::taylor, width);
      const Operand x(type, rows, heads * width, 1), y(type, rows, heads * width, 2);
      const Operand fx(type, rows, heads * wide, 3), fy(type, rows, heads * wide, 4);
      kernels::feature_map_forward(FeatureMap::taylor, x, width, fx);
      kernels::feature_map_forward(FeatureMap::taylor, y, width, fy);
      const auto polynomial = [&](const Doubles& a, const Doubles& b, std::int64_t head) {
        double s = 0;
        for (std::int64_t i = head * width; i < (head + 1) * width; ++i)
          s += a[static_cast<std::size_t>(i)] * b[static_cast<std::size_t>(i)];
        s /= std::sqrt(static_cast<double>(width));
        return 1 + s + s * s / 2;
      };
      const Doubles xs = x.values(), ys = y.values(), fxs = fx.values(), fys = fy.values();
      for (std::int64_t head = 0; head < rows * heads; ++head) {
        double product = 0, size = 0;
        for (std::int64_t i = head * wide; i < (head + 1) * wide; ++i) {
          const auto at = static_cast<std::size_t>(i);
          product += fxs[at] * fys[at];
          size += std::abs(fxs[at] * fys[at]);
        }
        EXPECT_NEAR(product, polynomial(xs, ys, head), (type == DType::f32 ? 1e-6 : 0x1p-7) * size);
      }
      // d(fx . fy) / dx, of which fy is the gradient of fx.
      const Operand dx(type, rows, heads * width, 5);
      kernels::feature_map_backward(FeatureMap::taylor, fy, x, width, dx);
      const Doubles wanted = reference::numerical_gradient(
          [&](const Doubles& at) {
            double sum = 0;
            for (std::int64_t head = 0; head < rows * heads; ++head)
              sum += polynomial(at, ys, head);
            return sum;
          },
          xs);
      expect_close(dx, wanted, type == DType::f32 ? 1e-5 : 0x1p-6);
    }
}

}  // namespace
}  // namespace switchyard::test
