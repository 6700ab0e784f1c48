#include "kernels/rows/rms_norm.hpp"

#include "kernels/check.hpp"
#include "kernels/cpu/rows/rms_norm.hpp"
#include "kernels/cuda/rows/rms_norm.hpp"
#include "kernels/cuda/rows/rms_norm_sizes.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/plan/loops.hpp"
#include "kernels/threads.hpp"

namespace switchyard::kernels {

namespace {

void check_forward(const TensorView& x, const TensorView& weight, const TensorView& y,
                   const TensorView& rstd) {
  expect(is_float(x.dtype), "x of type f32 or bf16");
  expect_vector(weight, DType::f32, x.cols(), "weight f32 [H]");
  expect_matrix(y, x.dtype, x.rows(), x.cols(), "y like x");
  expect_vector(rstd, DType::f32, x.rows(), "rstd f32 [T]");
}

}  // namespace

void rms_norm_forward(const TensorView& x, const TensorView& weight, float epsilon,
                      const TensorView& y, const TensorView& rstd) {
  if (x.empty()) return;
  check_forward(x, weight, y, rstd);
  dispatch(
      *x.device, [&] { cpu::rms_norm_forward(x, weight, epsilon, y, rstd); },
      [&] { plan::rms_norm_forward(x, y); },
      [&] { cuda::rms_norm_forward(x, weight, epsilon, y, rstd); });
}

void add_rms_norm_forward(const TensorView& x, const TensorView& delta, const TensorView& weight,
                          float epsilon, const TensorView& sum, const TensorView& y,
                          const TensorView& rstd) {
  if (x.empty()) return;
  check_forward(x, weight, y, rstd);
  expect_matrix(delta, x.dtype, x.rows(), x.cols(), "delta like x");
  expect_matrix(sum, x.dtype, x.rows(), x.cols(), "sum like x");
  dispatch(
      *x.device, [&] { cpu::add_rms_norm_forward(x, delta, weight, epsilon, sum, y, rstd); },
      [&] { plan::add_rms_norm_forward(x, y); },
      [&] { cuda::add_rms_norm_forward(x, delta, weight, epsilon, sum, y, rstd); });
}

void rms_norm_backward(const TensorView& dy, const TensorView& x, const TensorView& weight,
                       const TensorView& rstd, const TensorView& residual_gradient,
                       const TensorView& dx, const GradientSum& dweight,
                       const TensorView& workspace) {
  if (x.empty()) return;
  check_forward(x, weight, dy, rstd);
  expect_matrix(dx, x.dtype, x.rows(), x.cols(), "dx like x");
  if (!residual_gradient.empty())
    expect_matrix(residual_gradient, x.dtype, x.rows(), x.cols(), "residual_gradient like x");
  expect_gradient(dweight, x.cols(), "dweight: f32 or i64 [H]");
  expect(workspace.dtype == DType::u8 && workspace.is_contiguous() &&
             workspace.num_bytes() >= rms_norm_workspace_bytes(*x.device, x.cols()),
         "a workspace of rms_norm_workspace_bytes(device, H)");
  dispatch(
      *x.device,
      [&] {
        cpu::rms_norm_backward(dy, x, weight, rstd, residual_gradient, dx, dweight, workspace);
      },
      [&] { plan::rms_norm_backward(x, residual_gradient); },
      [&] {
        cuda::rms_norm_backward(dy, x, weight, rstd, residual_gradient, dx, in_fp32(dweight),
                                workspace);
      });
}

std::int64_t rms_norm_workspace_bytes(const Device& device, std::int64_t hidden) {
  if (device.target().device == DeviceKind::cuda)
    return cuda::rms_norm_row_chunks(hidden) * hidden * size_of(DType::f32);
  return cpu::rms_norm_workspace_bytes(hidden, num_threads_of(device));
}

}  // namespace switchyard::kernels
