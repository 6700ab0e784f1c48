#include "experts/router/given_load.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tensor/error.hpp"

namespace switchyard {

namespace {

std::vector<double> power_law(std::int64_t num_experts, double exponent) {
  std::vector<double> shares;
  for (std::int64_t e = 0; e < num_experts; ++e)
    shares.push_back(std::pow(static_cast<double>(e + 1), -exponent));
  const double sum = std::accumulate(shares.begin(), shares.end(), 0.0);
  for (double& share : shares) share /= sum;
  return shares;
}

}  // namespace

std::vector<double> given_load(std::int64_t num_experts, std::int64_t top_k, double imbalance) {
  const auto experts = static_cast<double>(num_experts), choices = static_cast<double>(top_k);
  expect(imbalance >= 1 && imbalance * choices <= experts * (1 + 1e-12),
         "an imbalance from 1 to num_experts / top_k");
  double least = 0, most = 64;  // (1 / 2)^64 is nothing beside 1
  constexpr int bisections = 100;
  for (int i = 0; i < bisections; ++i) {
    const double exponent = (least + most) / 2;
    (power_law(num_experts, exponent).front() * experts < imbalance ? least : most) = exponent;
  }
  std::vector<double> shares = power_law(num_experts, least);
  for (double& share : shares) share = std::min(1.0, share * choices);
  return shares;
}

}  // namespace switchyard
