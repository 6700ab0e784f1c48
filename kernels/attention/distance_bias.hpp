// What is added to the scores of attention by the distance between a query and a key, from learned
// parameters: attention reads one value for each head and distance, whatever it was made of. Small,
// once a step. On the CPU only.
//   buckets   T5's relative positions (Raffel et al. 2020): one value for all distances of a bucket
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tensor/tensor.hpp"

namespace switchyard::kernels {

// Attention adds values[h, d] to a score of head h at distance d = position of the query - that of
// the key; what is farther than the last distance gets that one's. Its gradient goes to the head's
// parameter parameters[d]. Borrows both.
struct DistanceBias {
  TensorView values;                         // f32 [num_heads, N], or none: nothing is added
  std::span<const std::int32_t> parameters;  // [N], each below num_parameters
  std::int64_t num_parameters = 0;           // of a head
};

// The bucket of each distance 0 ... max_distance under a causal mask, as T5's
// _relative_position_bucket has them: half of the buckets for one distance each, the others for
// ranges that widen by equal factors up to max_distance, from which on there is one.
std::vector<std::int32_t> distance_buckets(std::int64_t num_buckets, std::int64_t max_distance);

// values[h, d] = table[h, buckets[d]]. table: f32 [num_heads, num_buckets]; values: f32 [num_heads,
// number of distances].
void spread_buckets(const TensorView& table, std::span<const std::int32_t> buckets,
                    const TensorView& values);

}  // namespace switchyard::kernels
