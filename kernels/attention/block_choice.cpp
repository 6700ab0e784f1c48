#include "kernels/attention/block_choice.hpp"

#include <algorithm>

#include "kernels/check.hpp"
#include "kernels/cpu/attention/block_choice.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/plan/attention.hpp"

namespace switchyard::kernels {

namespace {

// Whole blocks of each sequence, of rows [S m, cols], and `each` summaries of them.
void check_blocks(const TensorView& rows, std::int64_t num_sequences, std::int64_t block,
                  const TensorView& pooled, std::int64_t each = 1) {
  expect(block > 0 && num_sequences > 0 && rows.rows() % num_sequences == 0,
         "rows of whole sequences and a block of some");
  expect_matrix(pooled, DType::f32, num_sequences * (rows.rows() / num_sequences / block) * each,
                rows.cols(), "summaries: f32 [sequences * whole blocks * those of each, cols]");
}

void check_queries(const BlockQueries& asking) {
  const KeyPattern& pattern = asking.pattern;
  expect(pattern.block > 0 && pattern.window > 0 && pattern.window % pattern.block == 0,
         "a window of whole blocks");
}

std::int64_t num_rows(const BlockQueries& asking) {
  return asking.num_sequences * num_positions(asking.queries);
}

BlockCounts counts_of_sequence(const BlockQueries& asking, std::span<const std::int32_t> starts) {
  BlockCounts counts;
  for (const PositionRange& range : asking.queries)
    for (std::int64_t p = range.begin; p < range.end(); ++p) {
      const auto next = std::ranges::upper_bound(starts, p);
      const std::int64_t begin = next == starts.begin() ? 0 : *std::prev(next);
      const std::int64_t count = asking.pattern.whole_blocks(p, begin).count;
      counts.whole += static_cast<double>(count);
      counts.chosen += static_cast<double>(std::min(count, asking.pattern.chosen_blocks));
    }
  return counts;
}

}  // namespace

void block_mean(const TensorView& rows, std::int64_t num_sequences, std::int64_t block,
                const TensorView& pooled) {
  check_blocks(rows, num_sequences, block, pooled);
  if (pooled.empty()) return;
  dispatch(
      *rows.device, [&] { cpu::block_mean(rows, num_sequences, block, pooled); },
      [&] { plan::block_mean(rows, pooled); });
}

void block_mean_backward(const TensorView& d_pooled, std::int64_t num_sequences, std::int64_t block,
                         const TensorView& d_rows) {
  check_blocks(d_rows, num_sequences, block, d_pooled);
  expect(d_rows.dtype == DType::f32, "gradients of rows in f32");
  if (d_pooled.empty()) return;
  dispatch(
      *d_rows.device, [&] { cpu::block_mean_backward(d_pooled, num_sequences, block, d_rows); },
      [&] { plan::block_mean(d_rows, d_pooled); });
}

void block_sums(const TensorView& rows, std::int64_t num_sequences, const TensorView& weights,
                const TensorView& sums) {
  expect(weights.dtype == DType::f32 && weights.is_contiguous(), "weights: f32, contiguous");
  check_blocks(rows, num_sequences, weights.cols(), sums, weights.rows());
  if (sums.empty()) return;
  dispatch(
      *rows.device, [&] { cpu::block_sums(rows, num_sequences, weights, sums); },
      [&] { plan::block_sums(rows, weights, sums); });
}

void block_sums_backward(const TensorView& d_sums, const TensorView& rows,
                         std::int64_t num_sequences, const TensorView& weights,
                         const TensorView& d_rows, const TensorView& d_weights) {
  check_blocks(rows, num_sequences, weights.cols(), d_sums, weights.rows());
  expect_matrix(d_rows, DType::f32, rows.rows(), rows.cols(), "gradients of rows in f32");
  expect_matrix(d_weights, DType::f32, weights.rows(), weights.cols(), "those of weights in f32");
  if (d_sums.empty()) return;
  dispatch(
      *rows.device,
      [&] { cpu::block_sums_backward(d_sums, rows, num_sequences, weights, d_rows, d_weights); },
      [&] {
        plan::block_sums(d_rows, weights, d_sums);
        plan::block_sums(rows, weights, d_sums);
      });
}

void fill_block_ranges(const BlockQueries& asking, const TensorView& first, const TensorView& end) {
  check_queries(asking);
  for (const TensorView* each : {&first, &end})
    expect_vector(*each, DType::i32, num_rows(asking), "ranges of blocks: i32 [queries]");
  if (first.empty()) return;
  dispatch(
      *first.device, [&] { cpu::fill_block_ranges(asking, first, end); }, [] {});
}

BlockCounts count_blocks(const BlockQueries& asking, DocumentStarts document_starts) {
  check_queries(asking);
  if (document_starts.empty()) {
    const BlockCounts each = counts_of_sequence(asking, {});
    const auto sequences = static_cast<double>(asking.num_sequences);
    return {each.whole * sequences, each.chosen * sequences};
  }
  BlockCounts counts;
  for (const std::vector<std::int32_t>& starts : document_starts) {
    const BlockCounts each = counts_of_sequence(asking, starts);
    counts.whole += each.whole;
    counts.chosen += each.chosen;
  }
  return counts;
}

void choose_blocks(const BlockQueries& asking, std::int64_t head_dim, const TensorView& q,
                   const TensorView& pooled_keys, const TensorView& chosen) {
  check_queries(asking);
  const std::int64_t kv_heads = pooled_keys.cols() / head_dim;
  expect(is_float(q.dtype) && q.rows() == num_rows(asking) && q.cols() % pooled_keys.cols() == 0,
         "q: [queries, heads * head_dim]");
  expect_matrix(chosen, DType::i32, q.rows(), kv_heads * asking.pattern.chosen_blocks,
                "choices: i32 [queries, kv heads * choices]");
  if (chosen.empty()) return;
  dispatch(
      *q.device, [&] { cpu::choose_blocks(asking, head_dim, q, pooled_keys, chosen); },
      [&] { plan::choose_blocks(asking, q, pooled_keys, chosen); });
}

}  // namespace switchyard::kernels
