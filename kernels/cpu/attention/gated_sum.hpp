// The CPU twin of kernels/attention/gated_sum.hpp.
#pragma once

#include "kernels/attention/gated_sum.hpp"

namespace switchyard::kernels::cpu {

void gated_sum(const TensorView& branches, const TensorView& gates, std::int64_t num_heads,
               const TensorView& out);

}  // namespace switchyard::kernels::cpu
