// The top-k softmax gate of a mixture of experts, in fp32.
//   probs = softmax(logits)     (indices, weights) = the k largest probs, ties to the lower index,
//   largest first; renormalised: weights are divided by their sum (as Mixtral does).
// Legend: T tokens, E experts, k choices, S sequences of L tokens (T = S L).
#pragma once

#include "tensor/tensor.hpp"

namespace switchyard::kernels {

// logits: f32 [T, E]. Written: probs f32 [T, E], lse f32 [T] (log sum exp of the logits), indices
// i32 [T, k], weights f32 [T, k].
void gate_forward(const TensorView& logits, bool renormalize, const TensorView& probs,
                  const TensorView& lse, const TensorView& indices, const TensorView& weights);

// Gradient to the logits from the weights, from a term linear in the probabilities that is the same
// for all tokens of a sequence (the balance loss), and from the z-loss:
//   dprobs[t, e] = sum over choices of dweights (through the renormalisation) + prob_slopes[s(t), e]
//   dlogits = softmax backward of dprobs + 2 * z_slope * lse * probs
// dweights: f32 [T, k]; prob_slopes: f32 [S, E], row s for tokens s L ... (s + 1) L - 1.
// dlogits: f32 [T, E], written.
void gate_backward(const TensorView& dweights, const TensorView& probs, const TensorView& lse,
                   const TensorView& indices, bool renormalize, const TensorView& prob_slopes,
                   float z_slope, const TensorView& dlogits);

// Statistics of each sequence for the balance loss: counts i32 [S, E] of (token, choice) pairs and
// prob_sums f32 [S, E], summed in token order. T = S * sequence_length.
void gate_statistics(const TensorView& probs, const TensorView& indices,
                     std::int64_t sequence_length, const TensorView& counts,
                     const TensorView& prob_sums);

}  // namespace switchyard::kernels
