#include "kernels/recurrence/gated_norm.hpp"

#include "kernels/check.hpp"
#include "kernels/cpu/recurrence/gated_norm.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/plan/loops.hpp"

namespace switchyard::kernels {

namespace {

void check(const GatedNorm& norm, const TensorView& x, const TensorView& z,
           const TensorView& weight, const TensorView& y) {
  expect(is_float(x.dtype), "x of type f32 or bf16");
  expect(norm.width > 0 && x.cols() % norm.width == 0, "a multiple of the norm's width");
  expect_matrix(y, x.dtype, x.rows(), x.cols(), "y like x");
  expect(z.empty() == (norm.gate == GateFunction::none), "z with a gate, and without one none");
  if (!z.empty()) expect_matrix(z, x.dtype, x.rows(), x.cols(), "z like x");
  expect_vector(weight, DType::f32, weight.numel() == x.cols() ? x.cols() : norm.width,
                "weight: f32 [width], or of each column");
}

}  // namespace

void gated_norm_forward(const GatedNorm& norm, const TensorView& x, const TensorView& z,
                        const TensorView& weight, const TensorView& y) {
  if (x.empty()) return;
  check(norm, x, z, weight, y);
  dispatch(
      *x.device, [&] { cpu::gated_norm_forward(norm, x, z, weight, y); },
      [&] { plan::gated_norm_forward(x, z); });
}

void gated_norm_backward(const GatedNorm& norm, const TensorView& dy, const TensorView& x,
                         const TensorView& z, const TensorView& weight, const TensorView& dx,
                         const TensorView& dz, const TensorView& dweight,
                         const TensorView& workspace) {
  if (x.empty()) return;
  check(norm, x, z, weight, dy);
  check(norm, x, dz, dweight, dx);
  expect(workspace.dtype == DType::u8 && workspace.is_contiguous() &&
             workspace.num_bytes() >= gated_norm_workspace_bytes(weight.numel()),
         "a workspace of gated_norm_workspace_bytes");
  dispatch(
      *x.device,
      [&] { cpu::gated_norm_backward(norm, dy, x, z, weight, dx, dz, dweight, workspace); },
      [&] { plan::gated_norm_backward(x, z); });
}

std::int64_t gated_norm_workspace_bytes(std::int64_t num_weights) {
  return cpu::gated_norm_row_chunks * num_weights * size_of(DType::f32);
}

}  // namespace switchyard::kernels
