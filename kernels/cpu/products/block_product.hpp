// Products of small dense fp32 blocks that lie in a core's caches, as the recurrences make them,
// chunk by chunk: nothing is packed, made on first use or kept between calls, and of triangles
// little more than what is not zero is computed. On blocks of 64 x 64 that is quicker than a
// library's call (docs/performance.md). On the calling thread alone. An element of the result is a
// sum over k in ascending order, whatever block it stands in.
#pragma once

#include <cstdint>

namespace switchyard::kernels::cpu {

// What of the product is a triangle, by rows i, columns j and terms p.
enum class Triangle : std::uint8_t {
  none,
  lower_factor,  // a[i, p] = 0 for p > i
  upper_factor,  // a[i, p] = 0 for p < i
  lower_result   // c[i, j] for j > i is not wanted: it may be written, or left as it is
};

enum class Into : std::uint8_t { replace, add, subtract };

// c[m, n] = a[m, k] b[k, n], or c += or -= it. A leading dim is the distance in elements between
// rows as stored; a transposed a is stored as [k, m].
struct BlockProduct {
  std::int64_t m = 0;
  std::int64_t n = 0;
  std::int64_t k = 0;
  std::int64_t lda = 0;
  std::int64_t ldb = 0;
  std::int64_t ldc = 0;
  bool a_transposed = false;
  Into into = Into::replace;
  Triangle triangle = Triangle::none;
};

// a, b, c do not overlap.
void multiply_blocks(const BlockProduct& product, const float* a, const float* b, float* c);

// to [cols, rows] = from [rows, cols]^T; dense.
void transpose_block(const float* from, std::int64_t rows, std::int64_t cols, float* to);

}  // namespace switchyard::kernels::cpu
