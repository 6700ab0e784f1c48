#include "kernels/rows/rms_norm.hpp"

#include <cmath>

#include "kernels/kernel_test.hpp"

namespace switchyard::test {
namespace {

using kernels::rms_norm_backward;
using reference::numerical_gradient;

constexpr float epsilon = 1e-5f;

Tensor workspace(std::int64_t hidden) {
  return Tensor(tested(), Purpose::workspace, DType::u8,
                {kernels::rms_norm_workspace_bytes(tested(), hidden)});
}

TEST(RmsNorm, ForwardIsTheFormula) {
  for_each_case([](const Case& c) {
    const Operand x(c.dtype, c.rows, c.cols, 1, c.gap), y(c.dtype, c.rows, c.cols, 2, c.gap);
    const Operand weight = vector_of(c.cols, 3), rstd = vector_of(c.rows, 4);
    kernels::rms_norm_forward(x, weight, epsilon, y, rstd);
    expect_close(y, reference::rms_norm(x.values(), weight.values(), epsilon),
                 tolerance_of(c.dtype));
    // y = x rstd weight with a weight of one gives rstd.
    const Doubles ones(static_cast<std::size_t>(c.cols), 1.0);
    const Doubles normalized = reference::rms_norm(x.values(), ones, epsilon);
    for (std::size_t t = 0; t < static_cast<std::size_t>(c.rows); ++t) {
      const std::size_t first = t * static_cast<std::size_t>(c.cols);
      EXPECT_NEAR(rstd.values()[t] * x.values()[first], normalized[first], 4e-6);
    }
  });
}

TEST(RmsNorm, AddsTheResidualFirstAndRoundsIt) {
  for_each_case([](const Case& c) {
    const Operand x(c.dtype, c.rows, c.cols, 1, c.gap), delta(c.dtype, c.rows, c.cols, 2, c.gap);
    Operand sum(c.dtype, c.rows, c.cols, 3, c.gap), wanted(c.dtype, c.rows, c.cols);
    const Operand y(c.dtype, c.rows, c.cols, 4, c.gap);
    const Operand weight = vector_of(c.cols, 5), rstd = vector_of(c.rows, 6);
    Doubles total = x.values();
    for (std::size_t i = 0; i < total.size(); ++i) total[i] += delta.values()[i];
    wanted.set(total);
    kernels::add_rms_norm_forward(x, delta, weight, epsilon, sum, y, rstd);
    EXPECT_EQ(sum.values(), wanted.values());
    expect_close(y, reference::rms_norm(wanted.values(), weight.values(), epsilon),
                 tolerance_of(c.dtype));
    // The sum may overwrite x.
    const Doubles first = y.values();
    kernels::add_rms_norm_forward(x, delta, weight, epsilon, x, y, rstd);
    EXPECT_EQ(x.values(), wanted.values());
    EXPECT_EQ(y.values(), first);
  });
}

TEST(RmsNorm, BackwardIsTheGradient) {
  for_each_case([](const Case& c) {
    const Operand x(c.dtype, c.rows, c.cols, 1, c.gap), dy(c.dtype, c.rows, c.cols, 2, c.gap);
    const Operand dx(c.dtype, c.rows, c.cols, 3, c.gap), y(c.dtype, c.rows, c.cols);
    const Operand residual(c.dtype, c.rows, c.cols, 4, c.gap);
    const Operand weight = vector_of(c.cols, 5), rstd = vector_of(c.rows),
                  dweight = vector_of(c.cols, 6);
    const Doubles dweight_before = dweight.values();
    const Tensor scratch = workspace(c.cols);
    kernels::rms_norm_forward(x, weight, epsilon, y, rstd);
    rms_norm_backward(dy, x, weight, rstd, residual, dx, dweight, scratch);

    Doubles wanted_dx = numerical_gradient(
        [&](const Doubles& at) {
          return reference::dot(reference::rms_norm(at, weight.values(), epsilon), dy.values());
        },
        x.values());
    for (std::size_t i = 0; i < wanted_dx.size(); ++i) wanted_dx[i] += residual.values()[i];
    expect_close(dx, wanted_dx, c.cols == 1 ? 1e-2 : 2 * tolerance_of(c.dtype));

    Doubles wanted_dweight = numerical_gradient(
        [&](const Doubles& at) {
          return reference::dot(reference::rms_norm(x.values(), at, epsilon), dy.values());
        },
        weight.values());
    for (std::size_t i = 0; i < wanted_dweight.size(); ++i) wanted_dweight[i] += dweight_before[i];
    expect_close(dweight, wanted_dweight, 1e-5);
  });
}

TEST(RmsNorm, BackwardTakesNoResidualOrItsOwnOutputAsOne) {
  const Operand x(DType::bf16, 5, 65, 1), dy(DType::bf16, 5, 65, 2), y(DType::bf16, 5, 65);
  const Operand plain(DType::bf16, 5, 65, 3), apart(DType::bf16, 5, 65, 4),
      in_place(DType::bf16, 5, 65, 5);
  const Operand weight = vector_of(65, 6), rstd = vector_of(5), dweight = vector_of(65);
  const Tensor scratch = workspace(65);
  kernels::rms_norm_forward(x, weight, epsilon, y, rstd);
  Operand residual(DType::bf16, 5, 65, 7);
  rms_norm_backward(dy, x, weight, rstd, residual, apart, dweight, scratch);
  Operand shared = Operand(DType::bf16, 5, 65, 7);
  rms_norm_backward(dy, x, weight, rstd, shared, shared, dweight, scratch);
  EXPECT_EQ(shared.values(), apart.values());
  residual.set(Doubles(5 * 65, 0.0));
  rms_norm_backward(dy, x, weight, rstd, residual, in_place, dweight, scratch);
  rms_norm_backward(dy, x, weight, rstd, TensorView{}, plain, dweight, scratch);
  EXPECT_EQ(plain.values(), in_place.values());
}

// The gradients by their formulas, in double.
struct Gradients {
  Doubles dx, dweight;
};
Gradients gradients_of(const Doubles& dy, const Doubles& x, const Doubles& weight) {
  const std::size_t hidden = weight.size();
  Gradients result{Doubles(x.size()), Doubles(hidden)};
  for (std::size_t row = 0; row < x.size(); row += hidden) {
    double squares = 0, dot = 0;
    for (std::size_t h = 0; h < hidden; ++h) {
      squares += x[row + h] * x[row + h];
      dot += dy[row + h] * weight[h] * x[row + h];
    }
    const auto size = static_cast<double>(hidden);
    const double rstd = 1 / std::sqrt(squares / size + static_cast<double>(epsilon));
    for (std::size_t h = 0; h < hidden; ++h) {
      const double normalized = x[row + h] * rstd;
      result.dx[row + h] = rstd * (dy[row + h] * weight[h] - normalized * dot * rstd / size);
      result.dweight[h] += dy[row + h] * normalized;
    }
  }
  return result;
}

// Rows that one thread of a card reads in one piece, in two, and again and again; a weight at an
// address that is no multiple of 16 bytes; many rows of few columns.
TEST(RmsNorm, SizesOfModelsAndBeyond) {
  struct Size {
    std::int64_t rows, hidden;
  };
  for (DType dtype : {DType::f32, DType::bf16})
    for (const auto& [rows, hidden] :
         {Size{5, 2048}, {3, 8192}, {2, 8200}, {2, 20000}, {2, 20003}, {5000, 16}}) {
      SCOPED_TRACE(testing::Message() << name_of(dtype) << " " << rows << " " << hidden);
      const Operand x(dtype, rows, hidden, 1), delta(dtype, rows, hidden, 2);
      const Operand y(dtype, rows, hidden), sum(dtype, rows, hidden), dx(dtype, rows, hidden);
      const Operand rstd = vector_of(rows), dweight = vector_of(hidden, 4);
      const Operand longer = vector_of(hidden + 1, 3);
      const Tensor scratch = workspace(hidden);
      for (std::int64_t shift : {0, 1}) {
        const TensorView weight = longer.view().slice_rows(shift, hidden + shift);
        const Doubles all = longer.values();
        const Doubles weights(all.begin() + shift, all.begin() + shift + hidden);
        kernels::add_rms_norm_forward(x, delta, weight, epsilon, sum, y, rstd);
        expect_close(y, reference::rms_norm(sum.values(), weights, epsilon), tolerance_of(dtype));
        const Doubles before = dweight.values();
        rms_norm_backward(delta, sum, weight, rstd, x, dx, dweight, scratch);
        Gradients wanted = gradients_of(delta.values(), sum.values(), weights);
        const Doubles residual = x.values();
        for (std::size_t i = 0; i < wanted.dx.size(); ++i) wanted.dx[i] += residual[i];
        expect_close(dx, wanted.dx, 2 * tolerance_of(dtype));
        // Sums of up to 5000 terms: fp32 rounds each by 2^-24 of the sum so far.
        for (std::size_t i = 0; i < before.size(); ++i) wanted.dweight[i] += before[i];
        expect_close(dweight, wanted.dweight, 1e-4);
      }
    }
}

TEST(RmsNorm, ThreadsChangeNoBit) {
  for (DType dtype : {DType::f32, DType::bf16})
    expect_same_for_any_threads([dtype] {
      const Operand x(dtype, 700, 130, 1), dy(dtype, 700, 130, 2), y(dtype, 700, 130);
      const Operand dx(dtype, 700, 130), weight = vector_of(130, 3), rstd = vector_of(700);
      const Operand dweight = vector_of(130, 4);
      const Tensor scratch = workspace(130);
      kernels::rms_norm_forward(x, weight, epsilon, y, rstd);
      rms_norm_backward(dy, x, weight, rstd, TensorView{}, dx, dweight, scratch);
      return std::vector<Doubles>{y.values(), rstd.values(), dx.values(), dweight.values()};
    });
}

}  // namespace
}  // namespace switchyard::test
