// The CPU twins of kernels/balance.hpp, by one thread: the operands are small.
#pragma once

#include "kernels/balance.hpp"

namespace switchyard::kernels::cpu {

void add_auxiliary_losses(const TensorView& counts, const TensorView& prob_sums,
                          const TensorView& lse, const AuxiliaryScale& scale,
                          const TensorView& sums);
void balance_slopes(const TensorView& counts, std::int64_t top_k, std::int64_t sequence_length,
                    double weight, const TensorView& slopes);

}  // namespace switchyard::kernels::cpu
