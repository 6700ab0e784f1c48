#include "experts/row_bias.hpp"

#include <algorithm>
#include <utility>

#include "kernels/host_copy.hpp"
#include "kernels/products/linear.hpp"
#include "kernels/rows/elementwise.hpp"

namespace switchyard {

RowBias::RowBias(ParameterStore& store, ParameterSpec spec, DType compute)
    : bias_(store.add(std::move(spec))),
      packed_(store.device(), Purpose::parameter, compute, {1, bias_.spec().global_shape.numel()}) {
}

Tensor RowBias::make_ones(Device& device, std::int64_t num_rows, DType compute) {
  Tensor ones(device, Purpose::workspace, compute, {num_rows, 1});
  if (compute == DType::f32)
    kernels::write_from_host<float>(
        ones, [](std::span<float> values) { std::ranges::fill(values, 1.0f); });
  else
    kernels::write_from_host<BFloat16>(
        ones, [](std::span<BFloat16> values) { std::ranges::fill(values, to_bf16(1.0f)); });
  return ones;
}

void RowBias::pack_weights() {
  kernels::copy(bias_.value().reshape({1, packed_->cols()}), packed_);
}

void RowBias::add_to(const TensorView& y) const {
  TensorView same_row = packed_;
  same_row.shape = {y.rows(), packed_->cols()};
  same_row.row_stride = 0;
  kernels::add(y, same_row, y);
}

// The sum over rows is a product with a column of ones, so exact sums and their order are those of
// weights.
void RowBias::backward(const TensorView& dy, const Tensor& ones, const Pass& pass) const {
  kernels::linear_backward_weight(
      dy, ones->slice_rows(0, dy.rows()),
      bias_.gradient_sum().at(bias_.gradient().reshape({packed_->cols(), 1})));
  pass.gradient_ready(bias_);
}

}  // namespace switchyard
