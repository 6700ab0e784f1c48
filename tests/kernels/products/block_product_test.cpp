// Products of small blocks against sums in double: sizes of whole tiles and beside them, both ways
// to store a, sums that go on, and triangles.
#include "kernels/cpu/products/block_product.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

namespace switchyard::test {
namespace {

using kernels::cpu::BlockProduct;
using kernels::cpu::Into;
using kernels::cpu::Triangle;

std::vector<float> random_block(std::int64_t count, unsigned seed) {
  std::mt19937 generator(seed);
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<float> block(static_cast<std::size_t>(count));
  for (float& x : block) x = uniform(generator);
  return block;
}

std::size_t at(std::int64_t row, std::int64_t ld, std::int64_t col) {
  return static_cast<std::size_t>(row * ld + col);
}

bool is_zero(Triangle triangle, std::int64_t i, std::int64_t p) {
  return (triangle == Triangle::lower_factor && p > i) ||
         (triangle == Triangle::upper_factor && p < i);
}

void expect_product(const BlockProduct& p) {
  SCOPED_TRACE(::testing::Message() << p.m << " x " << p.n << " x " << p.k << ", transposed "
                                    << p.a_transposed << ", into " << static_cast<int>(p.into)
                                    << ", triangle " << static_cast<int>(p.triangle));
  std::vector<float> a = random_block((p.a_transposed ? p.k : p.m) * p.lda, 1);
  const std::vector<float> b = random_block(p.k * p.ldb, 2);
  const std::vector<float> before = random_block(p.m * p.ldc, 3);
  const auto a_at = [&](std::int64_t i, std::int64_t j) -> float& {
    return a[p.a_transposed ? at(j, p.lda, i) : at(i, p.lda, j)];
  };
  for (std::int64_t i = 0; i < p.m; ++i)
    for (std::int64_t j = 0; j < p.k; ++j)
      if (is_zero(p.triangle, i, j)) a_at(i, j) = 0;
  std::vector<float> c = before;
  multiply_blocks(p, a.data(), b.data(), c.data());
  for (std::int64_t i = 0; i < p.m; ++i) {
    for (std::int64_t j = 0; j < p.n; ++j) {
      if (p.triangle == Triangle::lower_result && j > i) continue;
      double sum = 0, absolute = 1;
      for (std::int64_t t = 0; t < p.k; ++t) {
        const double term =
            static_cast<double>(a_at(i, t)) * static_cast<double>(b[at(t, p.ldb, j)]);
        sum += term;
        absolute += std::abs(term);
      }
      const double start = static_cast<double>(before[at(i, p.ldc, j)]);
      const double expected = p.into == Into::replace ? sum
                              : p.into == Into::add   ? start + sum
                                                      : start - sum;
      // Each of k + 1 roundings is at most 2^-24 of what has been added up.
      const double bound = static_cast<double>(p.k + 1) * std::ldexp(absolute, -24);
      ASSERT_NEAR(static_cast<double>(c[at(i, p.ldc, j)]), expected, bound) << i << ", " << j;
    }
    for (std::int64_t j = p.n; j < p.ldc; ++j)  // what lies between rows is not touched
      ASSERT_EQ(c[at(i, p.ldc, j)], before[at(i, p.ldc, j)]) << i << ", " << j;
  }
}

TEST(BlockProduct, IsTheSumOfProducts) {
  for (const std::int64_t m : {1, 5, 8, 13, 64})
    for (const std::int64_t n : {1, 7, 16, 39, 64, 65})
      for (const std::int64_t k : {1, 9, 64})
        for (const bool transposed : {false, true})
          for (const Into into : {Into::replace, Into::add, Into::subtract})
            expect_product({.m = m,
                            .n = n,
                            .k = k,
                            .lda = (transposed ? m : k) + 2,
                            .ldb = n + 1,
                            .ldc = n + 3,
                            .a_transposed = transposed,
                            .into = into});
}

TEST(BlockProduct, LeavesOutTheZerosOfATriangle) {
  for (const std::int64_t size : {1, 3, 8, 21, 64, 67})
    for (const Triangle triangle :
         {Triangle::lower_factor, Triangle::upper_factor, Triangle::lower_result})
      for (const bool transposed : {false, true}) {
        const std::int64_t n = triangle == Triangle::lower_result ? size : 24;
        expect_product({.m = size,
                        .n = n,
                        .k = size,
                        .lda = size,
                        .ldb = n,
                        .ldc = n,
                        .a_transposed = transposed,
                        .triangle = triangle});
      }
}

TEST(BlockProduct, TurnsBlocks) {
  for (const std::int64_t rows : {1, 4, 7, 64})
    for (const std::int64_t cols : {1, 4, 6, 65}) {
      const std::vector<float> from = random_block(rows * cols, 4);
      std::vector<float> to(from.size());
      kernels::cpu::transpose_block(from.data(), rows, cols, to.data());
      for (std::int64_t i = 0; i < rows; ++i)
        for (std::int64_t j = 0; j < cols; ++j)
          ASSERT_EQ(to[at(j, rows, i)], from[at(i, cols, j)]) << i << ", " << j;
    }
}

}  // namespace
}  // namespace switchyard::test
