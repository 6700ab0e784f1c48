// Attention to whole blocks of keys beside a window: all of them by a summary, or the best by a
// choice of each query (MoBA: Lu et al., "Mixture of Block Attention", 2025; with a choice that the
// heads of a kv head share, as NSA has it: Yuan et al. 2025). On the CPU only.
//
// A block is whole for a query if it lies before the query's window and in its document. Its
// summary is the mean of its keys and the mean of its values, or several learned sums of each (a
// causal form of Linformer: Wang et al. 2020); what a query thinks of a block is its
// product with the mean of the keys, summed over the heads that share the kv head. The best are
// chosen, of equals the earlier; nothing learns by the choice.
//
// Attention over what was chosen: kernels/attention/chosen_attention.hpp.
// Legend: S sequences, n queries and m keys of each, A heads, G kv heads, D head_dim, B block.
#pragma once

#include <span>

#include "kernels/attention/key_ranges.hpp"
#include "tensor/tensor.hpp"

namespace switchyard::kernels {

// Which queries ask. Keys are those at the positions 0 ... m - 1 of each sequence.
struct BlockQueries {
  KeyPattern pattern;  // has blocks, and a window of whole ones
  std::span<const PositionRange> queries;
  std::int64_t num_sequences = 1;
  // i32 [S, length], as of fill_key_ranges.
  TensorView document_begins = {};
};

// pooled: f32 [S floor(m / B), cols], written: means of rows [S m, cols].
void block_mean(const TensorView& rows, std::int64_t num_sequences, std::int64_t block,
                const TensorView& pooled);
// Adds d_pooled / B to d_rows, f32, at each row of the block.
void block_mean_backward(const TensorView& d_pooled, std::int64_t num_sequences, std::int64_t block,
                         const TensorView& d_rows);

// sums: f32 [S floor(m / B) R, cols], written: of each block R sums of its rows, with weights f32
// [R, B].
void block_sums(const TensorView& rows, std::int64_t num_sequences, const TensorView& weights,
                const TensorView& sums);
// Adds to d_rows [S m, cols] and d_weights, f32.
void block_sums_backward(const TensorView& d_sums, const TensorView& rows,
                         std::int64_t num_sequences, const TensorView& weights,
                         const TensorView& d_rows, const TensorView& d_weights);

// first, end: i32 [S n], written: the numbers of the summaries, pattern.summaries of each block, of
// the blocks that are whole for a query.
void fill_block_ranges(const BlockQueries& asking, const TensorView& first, const TensorView& end);
// The sum of their lengths, and of how many of them a kv head chooses.
struct BlockCounts {
  double whole = 0;
  double chosen = 0;
};
BlockCounts count_blocks(const BlockQueries& asking, DocumentStarts document_starts = {});

// q: [S n, A D]; pooled_keys: f32 [S nb, G D]. chosen: i32 [S n, G t], written: for each kv head
// its t = pattern.chosen_blocks blocks, ascending; behind them -1 where there are fewer.
void choose_blocks(const BlockQueries& asking, std::int64_t head_dim, const TensorView& q,
                   const TensorView& pooled_keys, const TensorView& chosen);

}  // namespace switchyard::kernels
