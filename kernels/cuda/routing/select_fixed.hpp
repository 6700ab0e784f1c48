// The CUDA twins of kernels/routing/select_fixed.hpp; a given load has none.
#pragma once

#include "kernels/routing/select_fixed.hpp"

namespace switchyard::kernels::cuda {

void select_by_hash(const TensorView& tokens, RandomKey key, std::int64_t num_experts,
                    const TensorView& indices);
void select_in_turn(const TokenNumbers& numbers, std::int64_t num_experts,
                    const TensorView& indices);

}  // namespace switchyard::kernels::cuda
