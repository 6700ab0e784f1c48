#include "kernels/products/linear.hpp"

#include "kernels/check.hpp"
#include "kernels/cpu/products/grouped_linear.hpp"
#include "kernels/cpu/products/linear.hpp"
#include "kernels/cuda/products/linear.hpp"
#include "kernels/cuda/products/linear_sizes.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/plan/linear.hpp"
#include "kernels/threads.hpp"

namespace switchyard::kernels {

PackedWeight::PackedWeight(Device& device, std::int64_t out_features, std::int64_t in_features,
                           DType compute, bool backward)
    : out_features_(out_features), in_features_(in_features), compute_(compute) {
  expect(out_features > 0 && in_features > 0, "a weight that is not empty");
  expect(is_float(compute), "a compute type of f32 or bf16");
  if (device.target().device == DeviceKind::cuda) {
    forward_ = Tensor(device, Purpose::parameter, DType::u8,
                      {cuda::packed_weight_bytes(out_features, in_features, compute)});
    shares_layout_ = backward;
    device.kernel_scratch(cuda::product_workspace_bytes);
    return;
  }
  const auto layout = [&](std::int64_t k, std::int64_t n) {
    return Tensor(device, Purpose::parameter, DType::u8, {cpu::packed_weight_bytes(k, n, compute)});
  };
  forward_ = layout(in_features, out_features);
  if (backward) backward_ = layout(out_features, in_features);
  device.kernel_scratch(cpu::product_scratch_bytes(
      {.out = out_features, .in = in_features, .compute = compute, .backward = backward},
      num_threads_of(device)));
}

void PackedWeight::pack(const TensorView& weight) {
  expect_matrix(weight, DType::f32, out_features_, in_features_, "weight: f32 [out, in]");
  expect(weight.is_contiguous(), "a contiguous weight");
  dispatch(
      *weight.device,
      [&] { cpu::pack_weight(weight, compute_, forward_.view(), backward_.view()); },
      [&] { plan::pack_weight(weight, compute_, forward_.view(), backward_.view()); },
      [&] { cuda::pack_weight(weight, compute_, forward_.view()); });
}

void linear_forward(const TensorView& x, const PackedWeight& weight, const TensorView& y) {
  expect_matrix(x, weight.compute_dtype(), y.rows(), weight.in_features(),
                "x: [rows, in] of the compute type");
  expect(y.cols() == weight.out_features() &&
             (y.dtype == weight.compute_dtype() || y.dtype == DType::f32),
         "y: [rows, out] of the compute type or f32");
  if (x.empty()) return;
  dispatch(
      *x.device, [&] { cpu::linear_forward(x, weight, y); },
      [&] { plan::linear_forward(x, weight, y); }, [&] { cuda::linear_forward(x, weight, y); });
}

void linear_backward_input(const TensorView& dy, const PackedWeight& weight, const TensorView& dx,
                           Accumulate accumulate) {
  expect_matrix(dy, weight.compute_dtype(), dx.rows(), weight.out_features(),
                "dy: [rows, out] of the compute type");
  expect(dx.cols() == weight.in_features() &&
             (dx.dtype == weight.compute_dtype() || dx.dtype == DType::f32),
         "dx: [rows, in] of the compute type or f32");
  expect(!weight.backward_layout().empty(), "a weight packed for the backward product");
  if (dy.empty()) return;
  dispatch(
      *dy.device, [&] { cpu::linear_backward_input(dy, weight, dx, accumulate); },
      [&] { plan::linear_backward_input(dy, weight, dx, accumulate); },
      [&] { cuda::linear_backward_input(dy, weight, dx, accumulate); });
}

void linear_backward_weight(const TensorView& dy, const TensorView& x, const GradientSum& dw) {
  expect(is_float(dy.dtype) && x.dtype == dy.dtype && x.rows() == dy.rows(),
         "dy and x: as many rows, f32 or bf16 alike");
  expect(has_size(dw.view, dy.cols(), x.cols()), "dw: [out, in]");
  expect_gradient(dw, dw.view.numel(), "dw: f32 or i64");
  if (dy.empty() || x.empty()) return;
  dispatch(
      *dy.device, [&] { cpu::linear_backward_weight(dy, x, dw); },
      [&] { plan::linear_backward_weight(dy, x, dw.view); },
      [&] { cuda::linear_backward_weight(dy, x, in_fp32(dw)); });
}

}  // namespace switchyard::kernels
