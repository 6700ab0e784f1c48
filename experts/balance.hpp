// The auxiliary losses of a router.
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
//
// The sums and slopes are kernels (kernels/balance.hpp): in double, from integer counts and fp32
// sums.
#pragma once

#include "experts/config.hpp"

namespace switchyard {

// ConfigError unless `config.balance_scope` is one that this program knows.
void check_balance_scope(const ExpertsConfig& config);

}  // namespace switchyard
