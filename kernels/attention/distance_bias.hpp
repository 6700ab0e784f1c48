// What is added to the scores of attention by the distance between a query and a key, from learned
// parameters: attention reads one value for each head and distance, whatever it was made of. Small,
// once a step. On the CPU only.
//   buckets   T5's relative positions (Raffel et al. 2020): one value for all distances of a bucket
//   span      adaptive spans (Sukhbaatar et al. 2019): the logarithm of a mask with a learned edge
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tensor/tensor.hpp"

namespace switchyard::kernels {

// Attention adds values[h, d] to a score of head h at distance d = position of the query - that of
// the key; what is farther than the last distance gets that one's. Its gradient, times slopes[h,
// d] if there are such, goes to the head's parameter parameters[d]. Borrows both.
struct DistanceBias {
  // f32 [num_heads, N], or [num_heads, 2 N]: values and, behind them, slopes. None: nothing is
  // added.
  TensorView values;
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

// With z = max_span * f[h] and m = clamp((ramp + z - d) / ramp, 0, 1): values[h, d] = log m, and
// slopes[h, d] = d log m / d f[h], 0 where m is 0 or 1. Where m is 0 the value is -1e30.
// fractions: f, f32 [num_heads], cut to [0, 1]; values: f32 [num_heads, 2 max_span].
void span_bias(const TensorView& fractions, std::int64_t max_span, std::int64_t ramp,
               const TensorView& values);
// Adds `slope` / number of heads to each of gradient, f32 [num_heads].
void add_span_penalty(double slope, const TensorView& gradient);

}  // namespace switchyard::kernels
