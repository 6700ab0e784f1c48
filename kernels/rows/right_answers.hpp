// Whether a model's most probable word is the right one.
#pragma once

#include "tensor/tensor.hpp"

namespace switchyard::kernels {

// right[t] = weights[t] where the target of row t is the largest of its first `vocab_size` logits,
// of equals the first; else 0, also where there is no target (kernels/rows/cross_entropy.hpp).
// logits: f32 [T, V]; targets: i32 [T]; weights: f32 [T], empty: 1 each; right: f32 [T], written.
void right_answers(const TensorView& logits, const TensorView& targets, std::int64_t vocab_size,
                   const TensorView& weights, const TensorView& right);

}  // namespace switchyard::kernels
