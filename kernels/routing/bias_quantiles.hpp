// Quantile balancing: the bias of the choice at which the scores of a step would have given every
// expert the same load (Su 2026; Megatron-LM's quantile_balancing, with a histogram of the whole
// step as in Kimi K3's technical report, 2026, section 2.3.3). Legend: T tokens, E experts, k
// choices, B bins.
//
//   alpha_t = the (k+1)-th largest of s_te + b_e            what an expert has to exceed
//   q_e     = what T k / E of the margins s_te - alpha_t exceed
//   b_e    += rate (-q_e - b_e), then all biases minus their mean
// Expert e is chosen where its margin exceeds -b_e; so at b_e = -q_e it has its share. Counts of
// margins are integers, so neither ranks nor micro-steps change their sum.
#pragma once

#include "tensor/tensor.hpp"

namespace switchyard::kernels {

// Bins of a margin, from below to above: of each sign one up to 2^-16, then 16 of the same width an
// octave up to 4, which no margin of scores in [0, 1] reaches with biases between -1 and 1; what is
// beyond counts at the end. So softmax scores of many experts and sigmoids are told apart alike
// well.
inline constexpr int margin_bins_of_sign = 18 * 16 + 1;
inline constexpr int num_margin_bins = 2 * margin_bins_of_sign;
int margin_bin(float margin);
// Where a bin begins; of num_margin_bins: where the last one ends.
double margin_bin_begin(int bin);

// histogram[e, margin_bin(s_te - alpha_t)] += 1 for all t and e. scores: f32 [T, E]; bias: f32 [E];
// top_k < E; histogram: i64 [E, B], contiguous.
void count_margins(const TensorView& scores, const TensorView& bias, std::int64_t top_k,
                   const TensorView& histogram);

// Where decision[1] (kernels/sums/step_figures.hpp) is not 0, moves the bias as above, the margins
// of a bin spread evenly over it; else nothing changes. histogram: i64 [E, B] of the whole step, of
// all ranks; decision: f32 [2]; rate in (0, 1]; bias: f32 [E].
void move_bias_to_quantiles(const TensorView& histogram, std::int64_t top_k,
                            const TensorView& decision, double rate, const TensorView& bias);

}  // namespace switchyard::kernels
