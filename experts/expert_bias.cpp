#include "experts/expert_bias.hpp"

#include <utility>

#include "kernels/rows/elementwise.hpp"
#include "kernels/rows/group_bias.hpp"

namespace switchyard {

ExpertBias::ExpertBias(ParameterStore& store, ParameterSpec spec, DType compute)
    : bias_(store.add(std::move(spec))) {
  const Shape local = bias_.local_shape();
  const std::int64_t width = local[local.num_dims() - 1];
  packed_ = Tensor(store.device(), Purpose::parameter, compute,
                   {local.num_dims() > 1 ? local[0] : 1, width});
  kernels::reserve_grouped_linear(store.device(), width, 1, compute);
}

TensorView ExpertBias::by_expert(const TensorView& whole) const {
  return whole.reshape({packed_->shape[0], packed_->shape[1]});
}

void ExpertBias::pack_weights() {
  kernels::copy(by_expert(bias_.value()), packed_);
}

void ExpertBias::add_to(const TensorView& y, const kernels::RowBlock& block,
                        std::int64_t first_expert) const {
  const std::int64_t first = first_expert + block.first_group;
  kernels::add_group_bias(packed_->slice_rows(first, first + block.num_groups), block.offsets, y);
}

void ExpertBias::backward(const TensorView& dy, const kernels::UnitBlock& block,
                          std::int64_t first_expert, const TensorView& ones) const {
  const std::int64_t first = first_expert + block.groups.first_group;
  const std::int64_t number = block.groups.num_groups;
  const TensorView gradient = by_expert(bias_.gradient())
                                  .slice_rows(first, first + number)
                                  .reshape({number, packed_->cols(), 1});
  kernels::grouped_linear_backward_weight(dy, ones.slice_rows(0, dy.rows()), block.units,
                                          bias_.gradient_sum().at(gradient));
}

}  // namespace switchyard
