// The statistics and auxiliary losses of a router, and their slopes (formulas and sources:
// experts/balance.hpp). Legend: S sequences, E experts, k choices, T tokens of this rank, L tokens
// of a whole sequence.
#pragma once

#include "tensor/tensor.hpp"

namespace switchyard::kernels {

// Statistics of each sequence: counts i32 [S, E] of (token, choice) pairs, dropped ones (-1) left
// out, and score_sums f32 [S, E], summed in token order. scores: f32 [T, E]; indices: i32 [T, k];
// T = S * sequence_length.
void balance_statistics(const TensorView& scores, const TensorView& indices,
                        std::int64_t sequence_length, const TensorView& counts,
                        const TensorView& score_sums);

// From the statistics of a micro-batch, counts i32 [S, E] and score_sums f32 [S, E], and lse f32
// [T], in double and in the order of memory:
//   sums[0] += (sum over s and e of E * counts / (L k) * score_sums / L) / scale.num_sequences
//   sums[1] += (sum over t of lse^2) / scale.num_tokens
// sums: f64 [2], added to.
struct AuxiliaryScale {
  std::int64_t top_k = 0;
  std::int64_t sequence_length = 0;  // L
  double num_sequences = 1;          // of the whole step
  double num_tokens = 1;             // of the whole step
};
void add_auxiliary_losses(const TensorView& counts, const TensorView& score_sums,
                          const TensorView& lse, const AuxiliaryScale& scale,
                          const TensorView& sums);

// Slope of `weight` * (sum over s of the balance of sequence s) to the probability of expert e for
// any token of sequence s: slopes[s, e] = weight * E * counts[s, e] / (L k) / L. slopes: f32 [S,
// E], written.
void balance_slopes(const TensorView& counts, std::int64_t top_k, std::int64_t sequence_length,
                    double weight, const TensorView& slopes);

}  // namespace switchyard::kernels
