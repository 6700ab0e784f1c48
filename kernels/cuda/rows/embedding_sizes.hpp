// Sizes of the CUDA twin of embedding_backward, for plans too: no CUDA here. The tokens are sorted
// by the row of the table that they add to, a digit of the row's number at a time (counting sort
// from the lowest digit up), each pass stable, so that tokens of one row stay in order.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

namespace switchyard::kernels::cuda {

struct TokenSort {
  static constexpr std::int64_t tokens_per_block = 2048;
  static constexpr int most_digit_bits = 8;

  TokenSort(std::int64_t tokens, std::int64_t table_rows)
      : num_tokens(tokens),
        num_blocks((tokens + tokens_per_block - 1) / tokens_per_block),
        key_bits(std::max<int>(1, std::bit_width(static_cast<std::uint64_t>(table_rows - 1)))),
        num_passes((key_bits + most_digit_bits - 1) / most_digit_bits),
        digit_bits((key_bits + num_passes - 1) / num_passes) {}

  std::int64_t num_tokens;
  std::int64_t num_blocks;
  int key_bits;
  int num_passes;
  int digit_bits;

  std::int64_t num_counts() const { return num_blocks << digit_bits; }
  // Two copies of keys and of token numbers, and the counts; all i32.
  std::int64_t scratch_bytes() const { return (4 * num_tokens + num_counts()) * 4; }
};

}  // namespace switchyard::kernels::cuda
