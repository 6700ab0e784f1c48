// The CPU twins of kernels/routing/balance.hpp; losses and slopes by one thread: their operands are
// small.
#pragma once

#include "kernels/routing/balance.hpp"

namespace switchyard::kernels::cpu {

void balance_statistics(const TensorView& scores, const TensorView& indices,
                        std::int64_t sequence_length, const TensorView& counts,
                        const TensorView& score_sums);
void add_auxiliary_losses(const TensorView& counts, const TensorView& score_sums,
                          const TensorView& lse, const AuxiliaryScale& scale,
                          const TensorView& sums);
void exact_balance_statistics(const TensorView& scores, const TensorView& indices,
                              std::int64_t sequence_length, const ExactTerms& score,
                              const TensorView& counts, const TensorView& score_sums);
void add_exact_auxiliary_losses(const TensorView& counts, const TensorView& score_sums,
                                const TensorView& lse, const ExactAuxiliaryScale& scale,
                                const TensorView& sums);
void balance_slopes(const TensorView& counts, std::int64_t top_k, std::int64_t sequence_length,
                    double weight, const TensorView& slopes);

void add_expert_load(const TensorView& counts, std::int64_t num_slots, const TensorView& load);

}  // namespace switchyard::kernels::cpu
