#include "kernels/cpu/attention/attention_distances.hpp"

#include <algorithm>
#include <cstring>

namespace switchyard::kernels::cpu {

namespace {

// Of the scores of a tile, padded as keys are.
std::int64_t most_distances(const AttentionBlocks& b) {
  return AttentionBlocks::padded_keys(b.max_rows() / b.group() + b.max_keys());
}

// Parts of `count` items from `first` on whose positions go on one by one.
template <class Position>
std::vector<Range> stretches(std::int64_t first, std::int64_t count, const Position& position) {
  std::vector<Range> parts;
  for (std::int64_t i = 0; i < count; ++i) {
    if (i == 0 || position(first + i) != position(first + i - 1) + 1) parts.push_back({i, 0});
    ++parts.back().count;
  }
  return parts;
}

}  // namespace

DistanceScratch::DistanceScratch(Carver& carver, const AttentionBlocks& b, bool for_backward) {
  if (b.shape().num_distances == 0) return;
  const std::int64_t distances = most_distances(b);
  queries = carver.take<std::byte>(b.operand_bytes(b.max_rows() * b.head_dim()));
  keys = carver.take<std::byte>(b.operand_bytes(distances * b.head_dim()));
  scores = carver.take<float>(b.max_rows() * distances);
  if (for_backward) {
    dscores = carver.take<std::byte>(b.operand_bytes(b.max_rows() * distances));
    dkeys = carver.take<float>(distances * b.head_dim());
  }
  scratchpad = carver.take<std::byte>(scratchpad_bytes);
}

std::vector<AttentionDistances::Tile> AttentionDistances::tiles_of(const Range& queries,
                                                                   const Range& keys) const {
  const auto of_query = [&](std::int64_t i) { return blocks_.query_position(i); };
  const auto of_key = [&](std::int64_t j) { return blocks_.key_position(j); };
  std::vector<Tile> tiles;
  for (const Range& rows : stretches(queries.begin, queries.count, of_query))
    for (const Range& cols : stretches(keys.begin, keys.count, of_key)) {
      const Tile tile{rows, cols,
                      of_query(queries.begin + rows.begin) - of_key(keys.begin + cols.end() - 1)};
      if (tile.first_distance + tile.num_distances() > 0) tiles.push_back(tile);
    }
  return tiles;
}

void AttentionDistances::gather_keys(const HeadGroup& g, const Tile& tile, std::byte* block) const {
  const TensorView& from = blocks_.shape().distance_keys;
  const std::int64_t dim = blocks_.head_dim();
  const std::int64_t row_bytes = blocks_.operand_bytes(dim);
  const std::int64_t padded = AttentionBlocks::padded_keys(tile.num_distances());
  for (std::int64_t e = 0; e < padded; ++e) {
    const std::int64_t distance = tile.first_distance + e;
    std::byte* to = block + e * row_bytes;
    if (e >= tile.num_distances() || distance < 0 || distance >= from.rows())
      std::fill_n(to, row_bytes, std::byte{0});
    else
      blocks_.copy_row(from.kernel_bytes() +
                           (distance * from.row_stride + g.kv_head * dim) * size_of(from.dtype),
                       to);
  }
}

void AttentionDistances::add_scores(const HeadGroup& g, const Range& queries, const Range& keys,
                                    float* scores, const DistanceScratch& s) const {
  if (!are_scored()) return;
  const std::int64_t dim = blocks_.head_dim();
  const std::int64_t cols = AttentionBlocks::padded_keys(keys.count);
  blocks_.gather_queries(blocks_.shape().distance_queries, g, queries, s.queries);
  for (const Tile& tile : tiles_of(queries, keys)) {
    const std::int64_t distances = AttentionBlocks::padded_keys(tile.num_distances());
    gather_keys(g, tile, s.keys);
    multiply({.m = blocks_.padded_rows(queries.count),
              .n = distances,
              .k = dim,
              .operands = blocks_.operands(),
              .result = DType::f32,
              .lda = dim,
              .ldb = dim,
              .ldc = distances,
              .b_transposed = true},
             s.queries, s.keys, reinterpret_cast<std::byte*>(s.scores), s.scratchpad);
    for (std::int64_t h = 0; h < blocks_.group(); ++h)
      for (std::int64_t a = 0; a < tile.queries.count; ++a) {
        const std::int64_t row = h * queries.count + tile.queries.begin + a;
        const float* of_last = s.scores + row * distances + a;  // the last key's distance
        float* to = scores + row * cols + tile.keys.begin;
        for (std::int64_t c = 0; c < tile.keys.count; ++c)
          to[c] += of_last[tile.keys.count - 1 - c];
      }
  }
}

void AttentionDistances::add_gradients(const HeadGroup& g, const Range& queries, const Range& keys,
                                       const std::byte* dscores, float* dqueries, float* dkeys,
                                       const DistanceScratch& s) const {
  if (!are_scored()) return;
  const std::int64_t dim = blocks_.head_dim();
  const std::int64_t rows = blocks_.padded_rows(queries.count);
  const std::int64_t cols = AttentionBlocks::padded_keys(keys.count);
  const std::int64_t bytes = blocks_.operand_bytes(1);
  for (const Tile& tile : tiles_of(queries, keys)) {
    const std::int64_t distances = AttentionBlocks::padded_keys(tile.num_distances());
    gather_keys(g, tile, s.keys);
    std::fill_n(s.dscores, rows * distances * bytes, std::byte{0});
    for (std::int64_t h = 0; h < blocks_.group(); ++h)
      for (std::int64_t a = 0; a < tile.queries.count; ++a) {
        const std::int64_t row = h * queries.count + tile.queries.begin + a;
        const std::byte* from = dscores + (row * cols + tile.keys.begin) * bytes;
        std::byte* of_last = s.dscores + (row * distances + a) * bytes;
        for (std::int64_t c = 0; c < tile.keys.count; ++c)
          std::memcpy(of_last + (tile.keys.count - 1 - c) * bytes, from + c * bytes,
                      static_cast<std::size_t>(bytes));
      }
    multiply({.m = rows,
              .n = dim,
              .k = distances,
              .operands = blocks_.operands(),
              .result = DType::f32,
              .lda = distances,
              .ldb = dim,
              .ldc = dim,
              .accumulate = true},
             s.dscores, s.keys, reinterpret_cast<std::byte*>(dqueries), s.scratchpad);
    multiply({.m = distances,
              .n = dim,
              .k = rows,
              .operands = blocks_.operands(),
              .result = DType::f32,
              .lda = distances,
              .ldb = dim,
              .ldc = dim,
              .a_transposed = true},
             s.dscores, s.queries, reinterpret_cast<std::byte*>(s.dkeys), s.scratchpad);
    const std::int64_t first = std::max<std::int64_t>(-tile.first_distance, 0);
    const std::int64_t end =
        std::min(tile.num_distances(), blocks_.shape().num_distances - tile.first_distance);
    for (std::int64_t e = first; e < end; ++e)
      for (std::int64_t d = 0; d < dim; ++d)
        dkeys[(tile.first_distance + e) * dim + d] += s.dkeys[e * dim + d];
  }
}

}  // namespace switchyard::kernels::cpu
