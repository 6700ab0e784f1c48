#include "parallel/context/block_attention.hpp"

#include <algorithm>

#include "kernels/rows/elementwise.hpp"

namespace switchyard {

namespace {

struct Most {
  std::int64_t blocks = 0;     // of a sequence
  std::int64_t choices = 0;    // of a query
  std::int64_t summaries = 0;  // of a sequence
};
Most most_of(std::span<const kernels::KeyPattern> patterns, std::int64_t max_keys) {
  Most most;
  for (const kernels::KeyPattern& pattern : patterns) {
    most.blocks = std::max(most.blocks, max_keys / pattern.block);
    most.choices = std::max(most.choices, pattern.chosen_blocks);
    most.summaries = std::max(most.summaries, max_keys / pattern.block * pattern.summaries);
  }
  return most;
}

}  // namespace

BlockAttention::BlockAttention(Device& device, const AttentionSizes& sizes, DType compute,
                               std::span<const kernels::KeyPattern> patterns,
                               std::int64_t max_queries, std::int64_t max_keys, bool for_training)
    : sizes_(sizes), compute_(compute) {
  const Most most = most_of(patterns, max_keys);
  const auto make = [&](DType dtype, const Shape& dims) {
    return Tensor(device, Purpose::workspace, dtype, dims);
  };
  std::int64_t bytes = 0;
  const auto needs = [&](const kernels::AttentionShape& shape) {
    bytes = std::max(bytes, kernels::attention_workspace_bytes(shape, compute, device.target()));
  };
  if (most.summaries > 0) {
    const Shape all = {sizes.num_sequences * most.summaries, 2 * sizes.key_cols()};
    summaries_ = make(DType::f32, all);
    if (compute != DType::f32) packed_summaries_ = make(compute, all);
    if (for_training) d_summaries_ = make(DType::f32, all);
    for (Tensor* each : {&first_, &end_})
      *each = make(DType::i32, {sizes.num_sequences * max_queries});
    needs(shape_of(sizes.num_sequences, max_queries, most.summaries));
  }
  if (most.choices > 0)
    mean_keys_ = make(DType::f32, {sizes.num_sequences * most.blocks, sizes.key_cols()});
  for (const kernels::KeyPattern& pattern : patterns)
    if (pattern.chosen_blocks > 0)
      bytes =
          std::max(bytes, kernels::chosen_attention_workspace_bytes(
                              shape_of(sizes.num_sequences, max_queries, max_keys), pattern.block,
                              pattern.chosen_blocks, compute, for_training, device.target()));
  workspace_ = make(DType::u8, {bytes});
}

kernels::AttentionShape BlockAttention::shape_of(std::int64_t num_sequences,
                                                 std::int64_t num_queries,
                                                 std::int64_t num_keys) const {
  return {.num_sequences = num_sequences,
          .query_length = num_queries,
          .key_length = num_keys,
          .num_heads = sizes_.num_heads,
          .num_kv_heads = sizes_.num_kv_heads,
          .head_dim = sizes_.head_dim,
          .scale = sizes_.scale};
}

void BlockAttention::choose(const kernels::BlockQueries& asking,
                            const AttentionInputs& inputs) const {
  const std::int64_t blocks = inputs.k.rows() / sizes_.num_sequences / asking.pattern.block;
  const TensorView means = mean_keys_->slice_rows(0, sizes_.num_sequences * blocks);
  kernels::block_mean(inputs.k, sizes_.num_sequences, asking.pattern.block, means);
  kernels::choose_blocks(asking, sizes_.head_dim, inputs.q, means, inputs.chosen);
}

BlockAttention::Summaries BlockAttention::summarize(const kernels::BlockQueries& asking,
                                                    const AttentionInputs& inputs) const {
  const std::int64_t cols = sizes_.key_cols();
  const std::int64_t block = asking.pattern.block;
  const std::int64_t blocks = inputs.k.rows() / sizes_.num_sequences / block;
  TensorView all =
      summaries_->slice_rows(0, sizes_.num_sequences * blocks * asking.pattern.summaries);
  const auto summarize = [&](const TensorView& rows, const TensorView& weights,
                             const TensorView& summaries) {
    if (weights.device == nullptr)
      kernels::block_mean(rows, sizes_.num_sequences, block, summaries);
    else
      kernels::block_sums(rows, sizes_.num_sequences, weights, summaries);
  };
  summarize(inputs.k, inputs.summary_keys, all.slice_cols(0, cols));
  summarize(inputs.v, inputs.summary_values, all.slice_cols(cols, 2 * cols));
  if (compute_ != DType::f32) {
    const TensorView packed = packed_summaries_->slice_rows(0, all.rows());
    kernels::copy(all, packed);
    all = packed;
  }
  return {all.slice_cols(0, cols), all.slice_cols(cols, 2 * cols)};
}

kernels::KeyRanges BlockAttention::ranges_of_summaries(const kernels::BlockQueries& asking,
                                                       double num_pairs) const {
  const std::int64_t rows = asking.num_sequences * num_positions(asking.queries);
  const kernels::KeyRanges ranges{.first = first_->slice_rows(0, rows),
                                  .end = end_->slice_rows(0, rows),
                                  .num_pairs = num_pairs};
  kernels::fill_block_ranges(asking, ranges.first, ranges.end);
  return ranges;
}

kernels::ChosenBlocks BlockAttention::chosen(const kernels::BlockQueries& asking,
                                             const AttentionInputs& inputs,
                                             double num_choices) const {
  return {.chosen = inputs.chosen,
          .block = asking.pattern.block,
          .num_pairs = num_choices * static_cast<double>(asking.pattern.block)};
}

void BlockAttention::forward(const kernels::BlockQueries& asking,
                             kernels::DocumentStarts document_starts, const AttentionInputs& inputs,
                             const TensorView& sums, const TensorView& lse,
                             const kernels::Poll& poll) {
  const kernels::BlockCounts counts = kernels::count_blocks(asking, document_starts);
  if (asking.pattern.chosen_blocks > 0) choose(asking, inputs);
  const bool is_first = asking.pattern.without_window;
  kernels::Merge merge = is_first ? kernels::Merge::replace : kernels::Merge::with_before;
  if (counts.whole == 0) {
    if (is_first)
      for (const TensorView* nothing : {&sums, &lse}) kernels::fill_zero(*nothing);
    return;
  }
  if (asking.pattern.summaries > 0) {
    const Summaries summaries = summarize(asking, inputs);
    const double pairs = counts.whole * static_cast<double>(asking.pattern.summaries);
    kernels::attention_forward(shape_of(sizes_.num_sequences, num_positions(asking.queries),
                                        summaries.keys.rows() / sizes_.num_sequences),
                               inputs.q, summaries.keys, summaries.values,
                               ranges_of_summaries(asking, pairs), sums, lse, merge, workspace_,
                               poll);
    merge = kernels::Merge::with_before;
  }
  if (asking.pattern.chosen_blocks == 0) return;
  kernels::chosen_attention_forward(shape_of(sizes_.num_sequences, num_positions(asking.queries),
                                             inputs.k.rows() / sizes_.num_sequences),
                                    inputs.q, inputs.k, inputs.v,
                                    chosen(asking, inputs, counts.chosen), sums, lse, merge,
                                    workspace_, poll);
}

void BlockAttention::backward_of_summaries(const kernels::BlockQueries& asking,
                                           const AttentionInputs& inputs,
                                           const AttentionResults& results,
                                           const AttentionRowGradients& sums, double num_pairs,
                                           const kernels::Poll& poll) const {
  const std::int64_t cols = sizes_.key_cols();
  const Summaries summaries = summarize(asking, inputs);
  const TensorView gradients = d_summaries_->slice_rows(0, summaries.keys.rows());
  const TensorView dk = gradients.slice_cols(0, cols), dv = gradients.slice_cols(cols, 2 * cols);
  kernels::attention_backward(
      shape_of(sizes_.num_sequences, num_positions(asking.queries),
               summaries.keys.rows() / sizes_.num_sequences),
      inputs.q, summaries.keys, summaries.values, ranges_of_summaries(asking, num_pairs),
      results.lse, results.delta, results.dout,
      {.dq = sums.q, .dk = dk, .dv = dv, .dq_merge = kernels::Merge::with_before}, workspace_,
      poll);
  const auto hand_on = [&](const TensorView& gradient, const TensorView& rows,
                           const TensorView& weights, const TensorView& d_rows,
                           const TensorView& d_weights) {
    if (weights.device == nullptr)
      kernels::block_mean_backward(gradient, sizes_.num_sequences, asking.pattern.block, d_rows);
    else
      kernels::block_sums_backward(gradient, rows, sizes_.num_sequences, weights, d_rows,
                                   d_weights);
  };
  hand_on(dk, inputs.k, inputs.summary_keys, sums.k, sums.summary_keys);
  hand_on(dv, inputs.v, inputs.summary_values, sums.v, sums.summary_values);
}

void BlockAttention::backward(const kernels::BlockQueries& asking,
                              kernels::DocumentStarts document_starts,
                              const AttentionInputs& inputs, const AttentionResults& results,
                              const AttentionRowGradients& sums, const kernels::Poll& poll) {
  const kernels::BlockCounts counts = kernels::count_blocks(asking, document_starts);
  if (counts.whole == 0) return;
  if (asking.pattern.summaries > 0)
    backward_of_summaries(asking, inputs, results, sums,
                          counts.whole * static_cast<double>(asking.pattern.summaries), poll);
  if (asking.pattern.chosen_blocks == 0) return;
  kernels::chosen_attention_backward(
      shape_of(sizes_.num_sequences, num_positions(asking.queries),
               inputs.k.rows() / sizes_.num_sequences),
      inputs.q, inputs.k, inputs.v, chosen(asking, inputs, counts.chosen), results.lse,
      results.delta, results.dout, sums.q, sums.k, sums.v, workspace_, poll);
}

}  // namespace switchyard
