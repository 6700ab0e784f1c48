// The loops over rows inside a chunk of kernels/recurrence/linear_recurrence.hpp, on dense fp32
// blocks of one thread. n: tokens of the chunk.
#pragma once

#include <cstdint>

#include "tensor/dtype.hpp"

namespace switchyard::kernels::cpu {

// pairs [n, n]: element (i, j) times e^{sums[i] - sums[j]} for j <= i, or j < i if it is `strict`,
// and 0 for all others. sums: of gates, from the first token on; null: all 0.
void decay_pairs(float* pairs, std::int64_t n, const float* sums, bool strict);

// grow[i] = e^{sums[i]}, fade[i] = e^{sums[n - 1] - sums[i]}.
void gate_factors(const float* sums, std::int64_t n, float* grow, float* fade);

// x [n, cols]: row i times factors[i].
void scale_rows(float* x, std::int64_t n, std::int64_t cols, const float* factors);
// to [n, cols] = the same, of another block.
void scaled_rows(const float* x, std::int64_t n, std::int64_t cols, const float* factors,
                 float* to);
void scale_block(float* x, std::int64_t numel, float factor);
// sum -= factor x.
void subtract_block(float* sum, const float* x, std::int64_t numel, float factor = 1);
// to = x - to.
void subtract_from(const float* x, std::int64_t numel, float* to);

// x = (1 + lower)^-1 x with the strictly lower triangle `lower` [n, n]; x [n, cols].
void solve_lower(const float* lower, std::int64_t n, std::int64_t cols, float* x);
// x = (1 + lower)^-T x.
void solve_transposed(const float* lower, std::int64_t n, std::int64_t cols, float* x);

float dot(const float* a, const float* b, std::int64_t n);
// to[i] = a[i] . b[i], of rows of dense blocks [n, cols].
void row_dots(const float* a, const float* b, std::int64_t n, std::int64_t cols, float* to);

// to[i] = the sum of a[r, c] b[r, c] over the rows r >= i and the columns c < i of blocks [n, n].
// columns: [n], scratch.
void sums_across(const float* a, const float* b, std::int64_t n, float* columns, float* to);

// Rows that lie some elements apart, from one type to another, times a factor.
template <class From, class To>
struct RowsBetween {
  const From* from;
  std::int64_t from_step;
  To* to;
  std::int64_t to_step;
  std::int64_t count, cols;
  float factor = 1;
};
void convert_block(const RowsBetween<float, float>& rows);
void convert_block(const RowsBetween<BFloat16, float>& rows);
void convert_block(const RowsBetween<float, BFloat16>& rows);

// A row of a tensor to fp32, times `factor`, and back.
void load_row(const float* from, std::int64_t n, float factor, float* to);
void load_row(const BFloat16* from, std::int64_t n, float factor, float* to);
void store_row(const float* from, std::int64_t n, float factor, float* to);
void store_row(const float* from, std::int64_t n, float factor, BFloat16* to);

}  // namespace switchyard::kernels::cpu
