// A recorded load of experts taken on to a model with other experts: by a Dirichlet distribution
// whose concentration gives the recorded one. (In the same model it follows from where the experts
// live: trainer/load_statistics.hpp.)
#pragma once

#include <cstdint>

namespace switchyard {

// Mean over draws of shares of num_experts experts from a symmetric Dirichlet distribution of that
// concentration: the largest sum of the experts of one of num_ranks ranks (contiguous, as even as
// they divide), over the mean. Deterministic.
double dirichlet_max_over_mean(double concentration, std::int64_t num_experts,
                               std::int64_t num_ranks);

// The concentration for which the fullest of num_experts experts has in the mean max_over_mean
// times its even share. At least 1 x; what no distribution gives is cut to what one does.
double concentration_of_load(double max_over_mean, std::int64_t num_experts);

}  // namespace switchyard
