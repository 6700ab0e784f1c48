// The CPU twins of kernels/routing/select_sequences.hpp. A sequence is one thread's work.
#pragma once

#include "kernels/routing/select_sequences.hpp"

namespace switchyard::kernels::cpu {

void sinkhorn_plan(const TensorView& logits, std::int64_t sequence_length, const TensorView& plan);
void select_balanced(const TensorView& scores, std::int64_t sequence_length,
                     const TensorView& indices);
void select_by_experts(const TensorView& scores, std::int64_t sequence_length, double capacity,
                       const TensorView& indices);
void drop_over_capacity(const TensorView& scores, std::int64_t sequence_length,
                        std::int64_t capacity, DropBy drop_by, const TensorView& indices);

}  // namespace switchyard::kernels::cpu
