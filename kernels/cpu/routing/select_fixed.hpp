// The CPU twins of kernels/routing/select_fixed.hpp.
#pragma once

#include "kernels/routing/select_fixed.hpp"

namespace switchyard::kernels::cpu {

void select_by_hash(const TensorView& tokens, RandomKey key, std::int64_t num_experts,
                    const TensorView& indices);
// ends: [E], of the experts' intervals, in units of 2^-32.
void select_by_shares(const TokenNumbers& numbers, std::span<const std::int64_t> ends,
                      const TensorView& indices);
void select_in_turn(const TokenNumbers& numbers, std::int64_t num_experts,
                    const TensorView& indices);

}  // namespace switchyard::kernels::cpu
