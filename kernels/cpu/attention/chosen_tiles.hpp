// How attention to chosen blocks is cut. Choices are sorted by block; a tile is a block of keys, or
// a part of a long one, with up to 256 rows of queries that chose it. Forward, a thread has a kv
// head of a sequence and a chunk of its queries, goes through the blocks and joins what each gives
// with what the rows have: no result by choice is stored. A chunk is as long as leaves a block some
// 128 rows. Backward, threads take the blocks of one kv head of a sequence, whose gradients are
// theirs alone; those of the queries are stored by choice and then added in the order of the
// choices.
#pragma once

#include <algorithm>

#include "kernels/attention/chosen_attention.hpp"
#include "kernels/cpu/attention/attention_backward.hpp"
#include "kernels/cpu/attention/attention_blocks.hpp"
#include "kernels/cpu/attention/softmax.hpp"

namespace switchyard::kernels::cpu {

inline constexpr std::int64_t rows_of_tile = 256;       // of a tile, at most
inline constexpr std::int64_t mean_rows_of_tile = 128;  // of a tile, in the mean
inline constexpr std::int64_t least_chunk = 256;        // queries

// How the work is cut.
struct ChoiceCut {
  ChoiceCut(const AttentionBlocks& b, std::int64_t block_of_keys, std::int64_t choices)
      : block(block_of_keys),
        num_choices(choices),
        num_queries(b.shape().query_length),
        num_blocks(b.shape().key_length / block),
        tile_queries(std::max<std::int64_t>(1, rows_of_tile / b.group())),
        tile_rows(b.padded_rows(tile_queries)),
        part(std::min(block, AttentionBlocks::max_keys_of_block)),
        part_cols(AttentionBlocks::padded_keys(part)) {
    const std::int64_t wanted = mean_rows_of_tile * num_blocks / (num_choices * b.group());
    chunk = std::max<std::int64_t>(1, std::min(std::max(wanted, least_chunk), num_queries));
  }
  std::int64_t num_chunks() const { return (num_queries + chunk - 1) / chunk; }
  Range queries_of(std::int64_t i) const {
    return {i * chunk, std::min(chunk, num_queries - i * chunk)};
  }
  Range keys_of(std::int64_t number, std::int64_t first) const {
    return {number * block + first, std::min(part, block - first)};
  }

  std::int64_t block, num_choices, num_queries, num_blocks;
  std::int64_t tile_queries, tile_rows;  // rows: of all heads of the group, padded
  std::int64_t part, part_cols;          // keys of a tile
  std::int64_t chunk = 0;                // queries
};

// Choices of a kv head by block: number row * t + j for choice j of a row.
struct ChoicesByBlock {
  ChoicesByBlock(Carver& carver, const ChoiceCut& cut, std::int64_t queries)
      : begins(carver.take<std::int32_t>(cut.num_blocks + 1)),
        choices(carver.take<std::int32_t>(queries * cut.num_choices)) {}
  std::int32_t* begins;   // by block, and the end
  std::int32_t* choices;  // ascending within a block
};

void sort_by_block(const TensorView& chosen, const ChoiceCut& cut, const HeadGroup& g,
                   const Range& queries, const ChoicesByBlock& to);

// What both passes read of a tile. R rows, N keys, D head_dim.
struct ChoiceScratch {
  ChoiceScratch(Carver& carver, const AttentionBlocks& b, const ChoiceCut& cut)
      : q(carver.take<std::byte>(b.operand_bytes(cut.tile_rows * b.head_dim()))),
        k(carver.take<std::byte>(b.operand_bytes(cut.part_cols * b.head_dim()))),
        v(carver.take<std::byte>(b.operand_bytes(cut.part_cols * b.head_dim()))),
        scores(carver.take<float>(cut.tile_rows * cut.part_cols)),
        probs(carver.take<std::byte>(b.operand_bytes(cut.tile_rows * cut.part_cols))),
        rows(carver.take<float>(cut.tile_rows * b.head_dim())),
        from(carver.take<std::int32_t>(cut.tile_rows)),
        to(carver.take<std::int32_t>(cut.tile_rows)),
        scratchpad(carver.take<std::byte>(scratchpad_bytes)) {}
  std::byte* q;        // [R, D]
  std::byte* k;        // [N, D]
  std::byte* v;        // [N, D]
  float* scores;       // [R, N]
  std::byte* probs;    // [R, N]
  float* rows;         // [R, D]: outputs, or gradients of queries
  std::int32_t* from;  // [R], 0
  std::int32_t* to;    // [R], the keys of the tile; of padding 0
  std::byte* scratchpad;
};

// Some choices of one block.
struct ChoiceTile {
  const AttentionBlocks& b;
  const ChoiceCut& cut;
  HeadGroup g;
  const std::int32_t* choices;
  std::int64_t count;

  std::int64_t query(std::int64_t i) const { return choices[i] / cut.num_choices; }
  std::int64_t num_rows() const { return b.group() * count; }
  std::int64_t padded_rows() const { return b.padded_rows(count); }
  // each(row of the tile, head of the group, i) for every row.
  template <class Each>
  void for_each_row(const Each& each) const {
    std::int64_t row = 0;
    for (std::int64_t h = 0; h < b.group(); ++h)
      for (std::int64_t i = 0; i < count; ++i, ++row) each(row, h, i);
  }
  void gather(const TensorView& from, std::byte* to) const {
    const std::int64_t row_bytes = b.operand_bytes(b.head_dim());
    for_each_row([&](std::int64_t row, std::int64_t h, std::int64_t i) {
      b.copy_row(b.query_at(from, g, h, query(i)), to + row * row_bytes);
    });
    std::fill(to + num_rows() * row_bytes, to + padded_rows() * row_bytes, std::byte{0});
  }
  // All rows see all keys of the tile.
  void show(std::int64_t num_keys, const ChoiceScratch& s) const {
    std::fill_n(s.from, padded_rows(), 0);
    std::fill_n(s.to, num_rows(), static_cast<std::int32_t>(num_keys));
    std::fill(s.to + num_rows(), s.to + padded_rows(), 0);
  }
  ScoreBlock scores(std::int64_t num_keys, const ChoiceScratch& s) const {
    return {.scores = s.scores,
            .rows = padded_rows(),
            .cols = AttentionBlocks::padded_keys(num_keys),
            .from = s.from,
            .to = s.to,
            .scale = b.scale_log2(),
            .store = b.store_as()};
  }
  // [rows, D] with [keys, D].
  Product rows_by_keys(std::int64_t num_keys) const {
    const std::int64_t cols = AttentionBlocks::padded_keys(num_keys);
    return {.m = padded_rows(),
            .n = cols,
            .k = b.head_dim(),
            .operands = b.operands(),
            .result = DType::f32,
            .lda = b.head_dim(),
            .ldb = b.head_dim(),
            .ldc = cols,
            .b_transposed = true};
  }
  // [rows, keys] with [keys, D].
  Product rows_by_dim(std::int64_t num_keys, bool accumulate) const {
    const std::int64_t cols = AttentionBlocks::padded_keys(num_keys);
    return {.m = padded_rows(),
            .n = b.head_dim(),
            .k = cols,
            .operands = b.operands(),
            .result = DType::f32,
            .lda = cols,
            .ldb = b.head_dim(),
            .ldc = b.head_dim(),
            .accumulate = accumulate};
  }
};

// Calls each(first choice, count) for the choices of block number `number`, at most a tile's.
template <class Each>
void for_each_tile(const ChoiceCut& cut, const ChoicesByBlock& choices, std::int64_t number,
                   const Each& each) {
  const std::int64_t end = choices.begins[number + 1];
  for (std::int64_t at = choices.begins[number]; at < end; at += cut.tile_queries)
    each(choices.choices + at, std::min(cut.tile_queries, end - at));
}

inline std::byte* bytes_of(float* values) {
  return reinterpret_cast<std::byte*>(values);
}

template <class Scratch>
std::int64_t bytes_for(const AttentionBlocks& b, const ChoiceCut& cut) {
  Carver carver(nullptr);
  const Scratch counted(carver, b, cut);
  return carver.bytes_from_null();
}

// As many as the workspace has room for.
inline int threads_for(const WorkspaceSizes& sizes, const TensorView& workspace) {
  const std::int64_t places = (workspace.num_bytes() - sizes.shared) / sizes.per_thread;
  return static_cast<int>(std::min<std::int64_t>(num_threads(), places));
}

// Of each pass, with the widest operands.
WorkspaceSizes chosen_forward_sizes(const AttentionBlocks& blocks, const ChoiceCut& cut);
WorkspaceSizes chosen_backward_sizes(const AttentionBlocks& blocks, const ChoiceCut& cut);

}  // namespace switchyard::kernels::cpu
