// The row operations of attention between its products, vectorised for the processor at hand:
// softmax of a block of scores with a running maximum and sum, and its gradient. Exponentials are
// taken to base 2 by a polynomial of degree 5 (relative error 1e-7), so scores arrive with a factor
// log2(e) in `scale`.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/dtype.hpp"

namespace switchyard::kernels::cpu {

// How probabilities and score gradients are stored for the products that read them.
enum class StoreAs : std::uint8_t { f32, bf16, f32_rounded_to_bf16 };

// rows x cols scores, dense; cols is a multiple of 64. Row r sees the columns from[r] ... to[r] -
// 1; the others get probability 0. from[r] == to[r]: it sees none.
struct ScoreBlock {
  const float* scores = nullptr;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  const std::int32_t* from = nullptr;
  const std::int32_t* to = nullptr;
  float scale = 1.0f;  // positive, log2(e) included
  StoreAs store = StoreAs::f32;
};

// State of the online softmax, by row: maximum of scale * score and sum of 2^(scale * score - max);
// sum is 0, and max without meaning, as long as the row has seen no column. When the maximum grows,
// `sum` and the row of `out` (rows x head_dim, dense) are rescaled. probs: rows x cols,
// 2^(scale * score - max).
struct OnlineSoftmax {
  float* max = nullptr;
  float* sum = nullptr;
  float* out = nullptr;
  std::int64_t head_dim = 0;
};
void softmax_block(const ScoreBlock& block, const OnlineSoftmax& state, std::byte* probs);

// probs = 2^(scale * score - lse), dscores = probs * (dprobs - delta). lse: to base 2, by row;
// delta: rowsum(dout * out). Stored as probs.
void softmax_block_backward(const ScoreBlock& block, const float* dprobs, const float* lse,
                            const float* delta, std::byte* probs, std::byte* dscores);

// Sum of a[i] * b[i] in fp32; each f32 or bf16.
float dot(DType a_type, const std::byte* a, DType b_type, const std::byte* b, std::int64_t n);

// target[i] = factor * source[i], rounded to nearest even.
void scale_into(const float* source, float factor, DType dtype, std::byte* target, std::int64_t n);

}  // namespace switchyard::kernels::cpu
