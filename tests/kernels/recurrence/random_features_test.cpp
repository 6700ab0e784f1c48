#include "kernels/recurrence/random_features.hpp"

#include <algorithm>
#include <cmath>

#include "kernels/kernel_test.hpp"

namespace switchyard::test {
namespace {

using kernels::FeatureSide;

struct Sizes {
  std::int64_t width, num_features, heads, rows;
};

// Exponents of one head, those of a query without what the largest takes off.
Doubles exponents(FeatureSide side, const double* x, const Doubles& directions, std::size_t width) {
  const double root = std::pow(static_cast<double>(width), 0.25);
  Doubles all;
  for (std::size_t r = 0; r < directions.size(); r += width) {
    double dot = 0, length = 0, distance = 0;
    for (std::size_t i = 0; i < width; ++i) {
      const double w = directions[r + i];
      dot += w * x[i] / root;
      length += w * w;
      distance += std::pow(x[i] / root - w, 2);
    }
    all.push_back(side == FeatureSide::queries
                      ? dot + length / 2
                      : std::min(64.0, static_cast<double>(width) / 2) - distance / 2);
  }
  return all;
}

// offsets: of the queries' heads; filled by the first call, and kept as they are by later ones, as
// the gradient takes them for constants.
Doubles featured(FeatureSide side, const Doubles& x, const Doubles& directions, std::size_t width,
                 Doubles& offsets) {
  Doubles features;
  const bool finds = offsets.empty();
  for (std::size_t head = 0; head < x.size() / width; ++head) {
    const Doubles all = exponents(side, x.data() + head * width, directions, width);
    if (finds)
      offsets.push_back(side == FeatureSide::queries ? *std::max_element(all.begin(), all.end())
                                                     : 0);
    for (const double each : all)
      features.push_back(std::exp(std::max(each - offsets[head], -60.0)));
  }
  return features;
}

void for_each_side(const std::function<void(FeatureSide, DType, const Sizes&)>& body) {
  for (const FeatureSide side : {FeatureSide::queries, FeatureSide::keys})
    for (const DType type : {DType::f32, DType::bf16})
      for (const Sizes& s : {Sizes{5, 3, 2, 4}, Sizes{16, 40, 3, 3}, Sizes{4, 6, 1, 35}}) {
        SCOPED_TRACE(testing::Message() << (side == FeatureSide::keys ? "keys " : "queries ")
                                        << s.width << " " << s.num_features);
        body(side, type, s);
      }
}

Tensor workspace_of(const Sizes& s) {
  return {tested(),
          Purpose::workspace,
          DType::u8,
          {kernels::random_features_workspace_bytes(s.width, s.num_features, tested().target())}};
}

TEST(RandomFeaturesTest, FeaturesAndTheirGradientsAreThoseOfTheFormula) {
  for_each_side([&](FeatureSide side, DType type, const Sizes& s) {
    const Operand x(type, s.rows, s.heads * s.width, 1, 3);
    const Operand y(type, s.rows, s.heads * s.num_features, 2, 5);
    const Operand directions(DType::f32, s.num_features, s.width, 3);
    const Tensor room = workspace_of(s);
    kernels::random_features_forward(side, x, directions, y, room);
    const auto width = static_cast<std::size_t>(s.width);
    Doubles offsets;
    const Doubles wanted = featured(side, x.values(), directions.values(), width, offsets);
    // An error of an exponent is one of the feature's, relative to it: here of at most some 40.
    const Doubles actual = y.values();
    for (std::size_t i = 0; i < wanted.size(); ++i)
      EXPECT_NEAR(actual[i], wanted[i], (type == DType::bf16 ? 0x1p-8 : 2e-5) * wanted[i] + 1e-30);
    EXPECT_TRUE(y.gaps_untouched());

    const Operand dy(type, s.rows, s.heads * s.num_features, 4, 1);
    Doubles small = dy.values();  // so that no gradient is a large number
    for (std::size_t i = 0; i < small.size(); ++i) small[i] /= 1 + wanted[i];
    dy.set(small);
    const Operand dx(type, s.rows, s.heads * s.width, 5, 2);
    kernels::random_features_backward(side, dy, x, directions, dx, room);
    const Doubles slopes = reference::numerical_gradient(
        [&](const Doubles& at) {
          return reference::dot(featured(side, at, directions.values(), width, offsets),
                                dy.values());
        },
        x.values());
    expect_close(dx, slopes, type == DType::bf16 ? 0x1p-6 : 1e-4);
    EXPECT_TRUE(dx.gaps_untouched());
  });
}

TEST(RandomFeaturesTest, NoKeyIsTooLongAndNoQuery) {
  for_each_side([&](FeatureSide side, DType type, const Sizes& s) {
    Operand x(type, s.rows, s.heads * s.width, 1);
    x.scale_by(100);
    const Operand y(type, s.rows, s.heads * s.num_features, 2);
    const Operand dx(type, s.rows, s.heads * s.width, 5);
    const Operand directions(DType::f32, s.num_features, s.width, 3);
    const Tensor room = workspace_of(s);
    kernels::random_features_forward(side, x, directions, y, room);
    kernels::random_features_backward(side, y, x, directions, dx, room);
    for (const double value : y.values()) {
      EXPECT_GT(value, 0);
      EXPECT_LT(value, 1e28);
    }
    for (const double value : dx.values()) EXPECT_TRUE(std::isfinite(value));
  });
}

TEST(RandomFeaturesTest, EveryNumberOfThreadsGivesTheSameBits) {
  const Sizes s{16, 24, 2, 70};
  expect_same_for_any_threads([&] {
    const Operand x(DType::f32, s.rows, s.heads * s.width, 1);
    const Operand y(DType::f32, s.rows, s.heads * s.num_features, 2);
    const Operand dx(DType::f32, s.rows, s.heads * s.width, 5);
    const Operand directions(DType::f32, s.num_features, s.width, 3);
    const Tensor room = workspace_of(s);
    kernels::random_features_forward(FeatureSide::keys, x, directions, y, room);
    kernels::random_features_backward(FeatureSide::keys, y, x, directions, dx, room);
    return std::vector<Doubles>{y.values(), dx.values()};
  });
}

}  // namespace
}  // namespace switchyard::test
