// Softmax cross-entropy of rows of logits, over blocks of the vocabulary with a running maximum and
// sum; loss_t = lse_t - logits[t, target_t].
#pragma once

#include "tensor/tensor.hpp"

namespace switchyard::kernels {

// The target of a row that counts for nothing: its loss and its gradient are 0.
inline constexpr std::int32_t no_target = -1;

// logits: f32 [T, V], of which the first `vocab_size` columns are words and the rest padding, which
// takes no probability and gets no gradient. targets: i32 [T], each in [0, vocab_size) or
// no_target. weights: f32 [T], finite and not below 0, how much each row counts; empty: 1 each. A
// row of weight 0 counts for nothing, either. losses: f32 [T], written, times the weight. dlogits:
// f32 or bf16 [T, V], may be empty (evaluation), may be `logits` itself if f32; written with
// gradient_scale * weight * (softmax - onehot).
void softmax_cross_entropy(const TensorView& logits, const TensorView& targets,
                           std::int64_t vocab_size, float gradient_scale, const TensorView& losses,
                           const TensorView& dlogits, const TensorView& weights = {});

}  // namespace switchyard::kernels
