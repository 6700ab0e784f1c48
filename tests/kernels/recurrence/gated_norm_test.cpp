#include "kernels/recurrence/gated_norm.hpp"

#include <cmath>

#include "kernels/kernel_test.hpp"

namespace switchyard::test {
namespace {

using kernels::GatedNorm;
using kernels::GateFunction;

double gate_of(GateFunction gate, double z) {
  const double s = 1 / (1 + std::exp(-z));
  return gate == GateFunction::none ? 1 : gate == GateFunction::sigmoid ? s : z * s;
}

Doubles normed(const GatedNorm& norm, const Doubles& x, const Doubles& z, const Doubles& weight) {
  Doubles y;
  const auto width = static_cast<std::size_t>(norm.width);
  for (std::size_t begin = 0; begin < x.size(); begin += width) {
    const auto inner = [&](std::size_t i) {
      return norm.gate_first ? x[i] * gate_of(norm.gate, z[i]) : x[i];
    };
    double squares = 0;
    for (std::size_t i = begin; i < begin + width; ++i) squares += inner(i) * inner(i);
    const double rstd =
        1 / std::sqrt(squares / static_cast<double>(width) + static_cast<double>(norm.epsilon));
    for (std::size_t i = begin; i < begin + width; ++i)
      y.push_back(inner(i) * rstd * weight[i % weight.size()] *
                  (norm.gate_first ? 1 : gate_of(norm.gate, z[i])));
  }
  return y;
}

void for_each_norm(const std::function<void(const GatedNorm&, const Case&)>& body) {
  for (const GateFunction gate : {GateFunction::none, GateFunction::sigmoid, GateFunction::silu})
    for (const bool first : {false, true}) {
      if (first && gate == GateFunction::none) continue;
      for_each_case([&](const Case& c) {
        SCOPED_TRACE(testing::Message() << static_cast<int>(gate) << " first " << first);
        body({.width = c.cols, .gate = gate, .gate_first = first, .epsilon = 1e-3f}, c);
      });
    }
}

// Two norms in a row, as of two heads.
TEST(GatedNormTest, ForwardIsTheFormula) {
  for_each_norm([](const GatedNorm& norm, const Case& c) {
    const Operand x(c.dtype, c.rows, 2 * c.cols, 1, c.gap),
        z(c.dtype, c.rows, 2 * c.cols, 2, c.gap);
    const Operand y(c.dtype, c.rows, 2 * c.cols, 3, c.gap), weight = vector_of(c.cols, 4);
    gated_norm_forward(norm, x, norm.gate == GateFunction::none ? TensorView{} : z.view(),
                       weight.view().flat(), y);
    expect_close(y, normed(norm, x.values(), z.values(), weight.values()), tolerance_of(c.dtype));
  });
}

TEST(GatedNormTest, BackwardIsTheGradient) {
  for_each_norm([](const GatedNorm& norm, const Case& c) {
    if (c.cols > 100) return;  // finite differences take long
    const Operand x(c.dtype, c.rows, 2 * c.cols, 1, c.gap),
        z(c.dtype, c.rows, 2 * c.cols, 2, c.gap);
    const Operand dy(c.dtype, c.rows, 2 * c.cols, 3, c.gap), weight = vector_of(c.cols, 4);
    const Operand dx(c.dtype, c.rows, 2 * c.cols, 5, c.gap),
        dz(c.dtype, c.rows, 2 * c.cols, 6, c.gap);
    const Operand dweight = vector_of(c.cols, 7);
    const Doubles before = dweight.values();
    const bool gated = norm.gate != GateFunction::none;
    const Tensor workspace(tested(), Purpose::workspace, DType::u8,
                           {kernels::gated_norm_workspace_bytes(norm.width)});
    gated_norm_backward(norm, dy, x, gated ? z.view() : TensorView{}, weight.view().flat(), dx,
                        gated ? dz.view() : TensorView{}, dweight.view().flat(), workspace);
    const auto loss = [&](const Doubles& xs, const Doubles& zs, const Doubles& ws) {
      return reference::dot(normed(norm, xs, zs, ws), dy.values());
    };
    const double tolerance = c.cols == 1 ? 2e-2 : 4 * tolerance_of(c.dtype);
    expect_close(
        dx,
        reference::numerical_gradient(
            [&](const Doubles& at) { return loss(at, z.values(), weight.values()); }, x.values()),
        tolerance);
    if (gated)
      expect_close(
          dz,
          reference::numerical_gradient(
              [&](const Doubles& at) { return loss(x.values(), at, weight.values()); }, z.values()),
          tolerance);
    Doubles wanted = reference::numerical_gradient(
        [&](const Doubles& at) { return loss(x.values(), z.values(), at); }, weight.values());
    for (std::size_t i = 0; i < wanted.size(); ++i) wanted[i] += before[i];
    expect_close(dweight, wanted, 1e-5);
  });
}

// Mamba-2: norms of groups of heads, a weight for each column.
TEST(GatedNormTest, AWeightForEachColumn) {
  const GatedNorm norm{.width = 5, .gate = GateFunction::silu, .gate_first = true};
  const Operand x(DType::f32, 3, 15, 1), z(DType::f32, 3, 15, 2), dy(DType::f32, 3, 15, 3);
  const Operand y(DType::f32, 3, 15), dx(DType::f32, 3, 15), dz(DType::f32, 3, 15);
  const Operand weight = vector_of(15, 4), dweight = vector_of(15, 5);
  dweight.set(Doubles(15, 0.0));
  gated_norm_forward(norm, x, z, weight.view().flat(), y);
  expect_close(y, normed(norm, x.values(), z.values(), weight.values()), 4e-6);
  const Tensor workspace(tested(), Purpose::workspace, DType::u8,
                         {kernels::gated_norm_workspace_bytes(15)});
  gated_norm_backward(norm, dy, x, z, weight.view().flat(), dx, dz, dweight.view().flat(),
                      workspace);
  expect_close(dweight,
               reference::numerical_gradient(
                   [&](const Doubles& at) {
                     return reference::dot(normed(norm, x.values(), z.values(), at), dy.values());
                   },
                   weight.values()),
               1e-5);
}

TEST(GatedNormTest, ThreadsChangeNoBit) {
  expect_same_for_any_threads([] {
    const GatedNorm norm{.width = 33, .gate = GateFunction::silu};
    const Operand x(DType::f32, 700, 66, 1), z(DType::f32, 700, 66, 2), dy(DType::f32, 700, 66, 3);
    const Operand dx(DType::f32, 700, 66), dz(DType::f32, 700, 66), weight = vector_of(33, 4);
    const Operand dweight = vector_of(33, 5);
    const Tensor workspace(tested(), Purpose::workspace, DType::u8,
                           {kernels::gated_norm_workspace_bytes(33)});
    gated_norm_backward(norm, dy, x, z, weight.view().flat(), dx, dz, dweight.view().flat(),
                        workspace);
    return std::vector<Doubles>{dx.values(), dz.values(), dweight.values()};
  });
}

}  // namespace
}  // namespace switchyard::test
