#pragma once

#include "kernels/attention/attention_merge.hpp"

namespace switchyard::kernels::cpu {

void attention_merge(const TensorView& other, const TensorView& other_lse, std::int64_t head_dim,
                     const TensorView& out, const TensorView& lse);

}  // namespace switchyard::kernels::cpu
