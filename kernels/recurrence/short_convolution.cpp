#include "kernels/recurrence/short_convolution.hpp"

#include <algorithm>

#include "kernels/check.hpp"
#include "kernels/cpu/recurrence/short_convolution.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/plan/loops.hpp"

namespace switchyard::kernels {

namespace {

void check(const ConvolutionShape& s, const TensorView& x, const TensorView& weight,
           const TensorView& bias, const TensorView& y) {
  expect(is_float(x.dtype), "x of type f32 or bf16");
  expect(s.width > 0, "at least one tap");
  expect_matrix(x, x.dtype, s.num_read(), s.channels, "x: [sequences * rows read, channels]");
  expect_matrix(y, x.dtype, s.num_held(), s.channels, "y: [sequences * rows held, channels]");
  expect_vector(weight, DType::f32, s.channels * s.width, "weight: f32 [channels, taps]");
  if (!bias.empty()) expect_vector(bias, DType::f32, s.channels, "bias: f32 [channels]");
  expect(s.document_starts.empty() || std::ssize(s.document_starts) == s.num_sequences,
         "document starts of every sequence, or none");
  std::vector<PositionRange> all(s.read.begin(), s.read.end());
  const std::vector<PositionRange> wanted = convolved_positions(s.held, s.width);
  all.insert(all.end(), wanted.begin(), wanted.end());
  expect(num_positions(joined(all)) == num_positions(s.read),
         "rows of all positions that the convolution reads");
}

}  // namespace

std::vector<PositionRange> convolved_positions(std::span<const PositionRange> held,
                                               std::int64_t width) {
  return seen_positions(held, width);
}

void short_convolution_forward(const ConvolutionShape& shape, const TensorView& x,
                               const TensorView& weight, const TensorView& bias,
                               const TensorView& y) {
  if (y.empty()) return;
  check(shape, x, weight, bias, y);
  dispatch(
      *x.device, [&] { cpu::short_convolution_forward(shape, x, weight, bias, y); },
      [&] { plan::short_convolution_forward(x, weight, y); });
}

void short_convolution_backward(const ConvolutionShape& shape, const TensorView& dy,
                                const TensorView& x, const TensorView& weight, const TensorView& dx,
                                const TensorView& dweight, const TensorView& dbias) {
  if (dy.empty()) return;
  check(shape, x, weight, dbias, dy);
  expect_matrix(dx, DType::f32, x.rows(), x.cols(), "dx: f32, of the size of x");
  expect_vector(dweight, DType::f32, weight.numel(), "dweight like weight");
  dispatch(
      *x.device, [&] { cpu::short_convolution_backward(shape, dy, x, weight, dx, dweight, dbias); },
      [&] { plan::short_convolution_backward(x, weight, dx); });
}

}  // namespace switchyard::kernels
