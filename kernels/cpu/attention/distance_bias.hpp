#pragma once

#include "kernels/attention/distance_bias.hpp"

namespace switchyard::kernels::cpu {

void spread_buckets(const TensorView& table, std::span<const std::int32_t> buckets,
                    const TensorView& values);

}  // namespace switchyard::kernels::cpu
