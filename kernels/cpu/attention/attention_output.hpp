// How rows of results leave the scratch of attention: divided by their sum and merged with what is
// there, or scaled and added to what is there.
#pragma once

#include "kernels/attention/attention.hpp"

namespace switchyard::kernels::cpu {

// The state of the online softmax for one row: out = sum of 2^(t - max) v, sum = sum of 2^(t -
// max); sum 0: no key was seen.
struct SoftmaxRow {
  const float* out = nullptr;  // [head_dim]
  float max = 0;               // to base 2
  float sum = 0;
};
// target: [head_dim] of `dtype` (with_before: f32).
void write_output_row(const SoftmaxRow& row, std::int64_t head_dim, Merge merge, DType dtype,
                      std::byte* target, float& lse);

// target = factor * source, or target += factor * source (f32 only).
void write_gradient_row(const float* source, float factor, std::int64_t n, Merge merge, DType dtype,
                        std::byte* target);

}  // namespace switchyard::kernels::cpu
