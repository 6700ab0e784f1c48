#include "kernels/recurrence/span_convolution.hpp"

#include "kernels/check.hpp"
#include "kernels/cpu/recurrence/span_convolution.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/plan/loops.hpp"

namespace switchyard::kernels {

namespace {

void check(const ConvolutionShape& shape, const TensorView& x, const TensorView& logits,
           const TensorView& y) {
  expect(is_float(x.dtype) && shape.width > 0, "x of type f32 or bf16, and taps");
  expect_matrix(x, x.dtype, shape.num_read(), shape.channels, "x: [rows read, channels]");
  expect_matrix(y, x.dtype, shape.num_held(), shape.channels, "y: [rows, channels] as x");
  expect(logits.dtype == DType::f32 && logits.rows() == y.rows() &&
             logits.cols() % shape.width == 0 &&
             shape.channels % (logits.cols() / shape.width) == 0,
         "logits: f32 [rows, heads * taps]");
}

}  // namespace

void span_convolution_forward(const ConvolutionShape& shape, const TensorView& x,
                              const TensorView& logits, const TensorView& y) {
  check(shape, x, logits, y);
  if (y.empty()) return;
  dispatch(
      *x.device, [&] { cpu::span_convolution_forward(shape, x, logits, y); },
      [&] { plan::span_convolution_forward(shape.width, x, logits, y); });
}

void span_convolution_backward(const ConvolutionShape& shape, const TensorView& dy,
                               const TensorView& x, const TensorView& logits, const TensorView& dx,
                               const TensorView& dlogits) {
  check(shape, x, logits, dy);
  expect_matrix(dx, DType::f32, x.rows(), x.cols(), "dx: f32 like x");
  expect_matrix(dlogits, DType::f32, logits.rows(), logits.cols(), "dlogits like logits");
  if (x.empty()) return;
  dispatch(
      *x.device, [&] { cpu::span_convolution_backward(shape, dy, x, logits, dx, dlogits); },
      [&] { plan::span_convolution_backward(shape.width, x, logits, dy); });
}

void multiply_elements(const TensorView& a, const TensorView& b, const TensorView& out) {
  expect(is_float(a.dtype), "a of type f32 or bf16");
  for (const TensorView* each : {&b, &out})
    expect_matrix(*each, a.dtype, a.rows(), a.cols(), "factors and product of one type and size");
  if (a.empty()) return;
  dispatch(
      *a.device, [&] { cpu::multiply_elements(a, b, out); }, [&] { plan::multiply_elements(a); });
}

}  // namespace switchyard::kernels
