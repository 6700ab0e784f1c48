// A skewed load for benchmarks.
#pragma once

#include <cstdint>
#include <vector>

namespace switchyard {

// The share of tokens that go to each expert, [E] with the sum k: k / sum over d of (d + 1)^-a
// times (e + 1)^-a, with the `a` for which expert 0 has `imbalance` times the mean. 1 <= imbalance
// <= E / k; at 1 all have the mean.
std::vector<double> given_load(std::int64_t num_experts, std::int64_t top_k, double imbalance);

}  // namespace switchyard
