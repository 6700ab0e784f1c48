#include "trainer/pricing/imbalance.hpp"

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

namespace switchyard {

namespace {

constexpr int num_draws = 200;
constexpr double least_concentration = 1e-2, most_concentration = 1e5;

}  // namespace

double dirichlet_max_over_mean(double concentration, std::int64_t num_experts,
                               std::int64_t num_ranks) {
  if (num_experts < 1 || num_ranks < 2) return 1;
  std::mt19937_64 random(1);
  std::gamma_distribution<double> gamma(concentration, 1.0);
  double sum_of_largest = 0;
  std::vector<double> of_rank(static_cast<std::size_t>(num_ranks));
  for (int draw = 0; draw < num_draws; ++draw) {
    std::ranges::fill(of_rank, 0.0);
    double total = 0;
    for (std::int64_t expert = 0; expert < num_experts; ++expert) {
      const double share = gamma(random);
      of_rank[static_cast<std::size_t>(expert * num_ranks / num_experts)] += share;
      total += share;
    }
    if (total > 0)
      sum_of_largest += *std::ranges::max_element(of_rank) / total * static_cast<double>(num_ranks);
    else
      sum_of_largest += static_cast<double>(num_ranks);
  }
  return sum_of_largest / num_draws;
}

double concentration_of_load(double max_over_mean, std::int64_t num_experts) {
  double low = std::log(least_concentration), high = std::log(most_concentration);
  for (int turn = 0; turn < 40; ++turn) {
    const double middle = (low + high) / 2;
    // The larger the concentration, the more even.
    const bool too_even =
        dirichlet_max_over_mean(std::exp(middle), num_experts, num_experts) < max_over_mean;
    (too_even ? high : low) = middle;
  }
  return std::exp((low + high) / 2);
}

}  // namespace switchyard
