// The CPU twins of kernels/routing/bias_quantiles.hpp.
#pragma once

#include "kernels/routing/bias_quantiles.hpp"

namespace switchyard::kernels::cpu {

void count_margins(const TensorView& scores, const TensorView& bias, std::int64_t top_k,
                   const TensorView& histogram);
void move_bias_to_quantiles(const TensorView& histogram, std::int64_t top_k,
                            const TensorView& decision, double rate, const TensorView& bias);

}  // namespace switchyard::kernels::cpu
