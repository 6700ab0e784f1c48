// From a router's logits to scores, in fp32.
// Legend: T tokens, E experts, k choices, S sequences of L tokens (T = S L).
#pragma once

#include "tensor/tensor.hpp"

namespace switchyard::kernels {

// scores = softmax(logits) and lse = log sum exp of the logits, row by row. A NaN or +infinity
// among a row's logits makes all its scores NaN. logits: f32 [T, E]. Written: scores f32 [T, E],
// lse f32 [T].
void score_softmax(const TensorView& logits, const TensorView& scores, const TensorView& lse);

// The gradient to the logits, from that of the scores
//   dscores[t, e] = (sum over j with indices[t, j] = e of dchosen[t, j]) + slopes[s(t), e]
// and from z_slope * (sum over t of lse[t]^2):
//   dlogits = scores * (dscores - <scores, dscores>) + 2 * z_slope * lse * scores
// dchosen: f32 [T, k]; indices: i32 [T, k], -1 where nothing was chosen; slopes: f32 [S, E], row s
// for tokens s L ... (s + 1) L - 1. dlogits: f32 [T, E], written.
void score_softmax_backward(const TensorView& dchosen, const TensorView& indices,
                            const TensorView& slopes, float z_slope, const TensorView& scores,
                            const TensorView& lse, const TensorView& dlogits);

// scores = 1 / (1 + exp(-logits)) (DeepSeek-V3, 2024, eq. 15) and lse as score_softmax does.
void score_sigmoid(const TensorView& logits, const TensorView& scores, const TensorView& lse);

// out = x / (sum of its row): scores as shares, which is what a balance loss takes means of
// (DeepSeek-V3, eq. 19). f32 [T, E]; out may be x.
void divide_by_row_sums(const TensorView& x, const TensorView& out);

// As score_softmax_backward, with the slopes being those of a row's shares:
//   dscores[t, e] = (sum over j with indices[t, j] = e of dchosen[t, j])
//                   + (slopes[s(t), e] - <slopes[s(t)], shares[t]>) / (sum of scores[t])
//   dlogits = scores * (1 - scores) * dscores + 2 * z_slope * lse * exp(logits - lse)
void score_sigmoid_backward(const TensorView& dchosen, const TensorView& indices,
                            const TensorView& slopes, float z_slope, const TensorView& logits,
                            const TensorView& scores, const TensorView& lse,
                            const TensorView& dlogits);

}  // namespace switchyard::kernels
