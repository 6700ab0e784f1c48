#pragma once

#include "kernels/attention/distance_bias.hpp"

namespace switchyard::kernels::cpu {

void spread_buckets(const TensorView& table, std::span<const std::int32_t> buckets,
                    const TensorView& values);

void span_bias(const TensorView& fractions, std::int64_t max_span, std::int64_t ramp,
               const TensorView& values);
void add_span_penalty(double slope, const TensorView& gradient);

}  // namespace switchyard::kernels::cpu
