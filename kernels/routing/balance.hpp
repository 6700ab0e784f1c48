// The statistics and auxiliary losses of a router, and their slopes, in double, from integer counts
// and fp32 sums. Legend: S sequences, E experts, k choices, T tokens of this rank, L tokens of a
// whole sequence.
//
// Balance loss (Fedus, Zoph, Shazeer: Switch Transformers, 2021, eq. 4-6), taken within each
// sequence: with L tokens, k choices and E experts, of a sequence s,
//   f_e = counts[s, e] / (L k)       share of the slots that chose expert e (no gradient)
//   P_e = score_sums[s, e] / L       mean score (probability) of expert e
//   balance_s = E * sum over e of f_e P_e         1 at perfect balance, at most E
// and the loss is the mean over the sequences of the step and over the layers with experts. Counts
// are those of whole sequences even where these are split over ranks, so no layout and no
// accumulation can change it: the ranks' terms, each with its own tokens' P_e, add up to the loss.
//
// z-loss (Zoph et al.: ST-MoE, 2022, eq. 5): mean over tokens and layers of (log sum exp logits)^2.
#pragma once

#include "kernels/sums/sums.hpp"

namespace switchyard::kernels {

// Statistics of each sequence: counts i32 [S, E] of (token, choice) pairs, dropped ones (-1) left
// out, and score_sums f32 [S, E], each summed in an order that sequence_length alone decides (on
// the CPU that of the tokens). scores: f32 [T, E]; indices: i32 [T, k]; T = S * sequence_length.
void balance_statistics(const TensorView& scores, const TensorView& indices,
                        std::int64_t sequence_length, const TensorView& counts,
                        const TensorView& score_sums);

// From the statistics of a micro-batch, counts i32 [S, E] and score_sums f32 [S, E], and lse f32
// [T], in double and in an order that the sizes alone decide:
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

// The same as sums without an order (kernels/sums/sums.hpp). score_sums: f64 [S, E], of scores that
// are rounded to multiples of a quantum.
void exact_balance_statistics(const TensorView& scores, const TensorView& indices,
                              std::int64_t sequence_length, const ExactTerms& score,
                              const TensorView& counts, const TensorView& score_sums);
// counts and score_sums: of whole sequences. Adds the balance loss of each sequence, unless another
// rank counts it, and lse^2 of each token, rounded and not yet divided by how many there are.
struct ExactAuxiliaryScale {
  std::int64_t top_k = 0;
  std::int64_t sequence_length = 0;  // L
  ExactTerms balance;
  ExactTerms z;
  bool counts_balance = true;
};
void add_exact_auxiliary_losses(const TensorView& counts, const TensorView& score_sums,
                                const TensorView& lse, const ExactAuxiliaryScale& scale,
                                const TensorView& sums);

// Slope of `weight` * (sum over s of the balance of sequence s) to the probability of expert e for
// any token of sequence s: slopes[s, e] = weight * E * counts[s, e] / (L k) / L. slopes: f32 [S,
// E], written.
void balance_slopes(const TensorView& counts, std::int64_t top_k, std::int64_t sequence_length,
                    double weight, const TensorView& slopes);

// load[p] += counts[p], and load[places] += num_slots - the sum of the counts: those of num_slots
// (token, choice) pairs that were dropped. counts: i32 [places]; load: i64 [places + 1].
void add_expert_load(const TensorView& counts, std::int64_t num_slots, const TensorView& load);

}  // namespace switchyard::kernels
