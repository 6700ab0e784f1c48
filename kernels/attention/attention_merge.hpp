// Joins the result of attention over other keys to one that is there, where that one is not in
// fp32: with l and l' the log-sum-exps of both, out = out e^(l - z) + other e^(l' - z) and lse = z
// = log(e^l + e^l'). (Merge::with_before does the same inside of attention, for fp32.) On the CPU
// only.
#pragma once

#include <cstdint>

#include "tensor/tensor.hpp"

namespace switchyard::kernels {

// other [rows, num_heads * head_dim], other_lse and lse [rows, num_heads]: f32. out like other, f32
// or bf16. out and lse are changed.
void attention_merge(const TensorView& other, const TensorView& other_lse, std::int64_t head_dim,
                     const TensorView& out, const TensorView& lse);

}  // namespace switchyard::kernels
