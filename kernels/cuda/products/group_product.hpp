// One product of the rows of groups, as the kernels that compute it take it.
#pragma once

#include <span>

#include "kernels/products/linear.hpp"

namespace switchyard::kernels::cuda {

struct GroupProduct {
  // x of the forward product, else dy.
  TensorView rows;
  // i32 [groups + 1] on the card; TensorView{}: one group has all rows.
  TensorView offsets;
  std::span<const PackedWeight> weights;  // of forward and backward_input
  TensorView other_rows;                  // x of backward_weight, else TensorView{}
  // y, dx (strided rows) or dw [groups, out, in].
  TensorView result;
  Accumulate accumulate = Accumulate::no;

  bool is_weight_gradient() const { return weights.empty(); }
  std::int64_t num_groups() const {
    return is_weight_gradient() ? result.shape[0] : std::ssize(weights);
  }
};

// For any card: tiles in shared memory and fp32 arithmetic. is_forward: x W^T, else dy W; a weight
// gradient needs no telling.
void simt_product(const GroupProduct& product, bool is_forward);

// Whether wgmma_product can be called: bf16 operands whose rows come in packets of 16 bytes, on a
// card of compute capability 9 that this build has code for.
bool has_wgmma_product(const GroupProduct& product);
// On Hopper's matrix units.
void wgmma_product(const GroupProduct& product, bool is_forward);

}  // namespace switchyard::kernels::cuda
