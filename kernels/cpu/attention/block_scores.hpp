// What a query thinks of blocks, and the best of them: the vectorised part of choose_blocks.
#pragma once

#include <cstdint>
#include <vector>

namespace switchyard::kernels::cpu {

// The means of a kv head of a sequence, dim after dim, padded: [D, stride].
struct BlockMeans {
  static constexpr std::int64_t padding = 64;  // elements that may be read behind the blocks
  BlockMeans(std::int64_t dim, std::int64_t num_blocks)
      : head_dim(dim),
        stride(num_blocks + padding),
        values(static_cast<std::size_t>(dim * stride), 0.0f) {}
  std::int64_t head_dim;
  std::int64_t stride;
  std::vector<float> values;
};

// The products of a query [D] with the blocks first ... first + count - 1. scores: room for count +
// padding.
void score_blocks(const float* query, const BlockMeans& means, std::int64_t first,
                  std::int64_t count, float* scores);

// query: [D]. scores: room for count + padding. chosen: the num_choices best of the blocks first
// ... first + count - 1 by their products with the query, ascending; -1 behind them. Of equals the
// earlier is the better; a score that is no number is worse than all others. A score is a sum over
// the dims in their order, whatever the blocks beside it.
void choose_best(const float* query, const BlockMeans& means, std::int64_t first,
                 std::int64_t count, std::int64_t num_choices, float* scores, std::int32_t* chosen);

}  // namespace switchyard::kernels::cpu
