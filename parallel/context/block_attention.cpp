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

TensorView rows_at(const TensorView& view, const PositionRange& rows) {
  return view.slice_rows(rows.begin, rows.end());
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
  if (most.choices > 0) {
    const std::int64_t places = max_queries * most.choices;
    mean_keys_ = make(DType::f32, {sizes.num_sequences * most.blocks, sizes.key_cols()});
    for (Tensor* each : {&query_rows_, &places_, &first_keys_, &end_keys_})
      *each = make(DType::i32, {places});
    const std::int64_t group = sizes.num_heads / sizes.num_kv_heads;
    partial_ = make(DType::f32, {places, group * sizes.head_dim});
    partial_lse_ = make(DType::f32, {places, group});
    needs(kernels::HeadSlice(shape_of(1, places, max_keys), 0, group).shape());
  }
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

template <class Each>
void BlockAttention::for_each_choice(const kernels::BlockQueries& asking,
                                     const AttentionInputs& inputs, double num_pairs,
                                     Each each) const {
  const std::int64_t n = num_positions(asking.queries);
  const std::int64_t m = inputs.k.rows() / sizes_.num_sequences;
  const std::int64_t t = asking.pattern.chosen_blocks;
  const std::int64_t group = sizes_.num_heads / sizes_.num_kv_heads;
  const auto of_places = [&](const Tensor& rows) { return rows->slice_rows(0, n * t); };
  const kernels::ChoicePlaces places{of_places(query_rows_), of_places(first_keys_),
                                     of_places(end_keys_), of_places(places_)};
  const kernels::KeyRanges ranges{
      .first = places.first,
      .end = places.end,
      .num_pairs = num_pairs / static_cast<double>(sizes_.num_sequences),
      .query_rows = places.query_rows,
      .rows_at_places = n};
  for (std::int64_t s = 0; s < sizes_.num_sequences; ++s)
    for (std::int64_t g = 0; g < sizes_.num_kv_heads; ++g) {
      const PositionRange queries{s * n, n}, keys{s * m, m};
      kernels::sort_choices(rows_at(inputs.chosen, queries).slice_cols(g * t, (g + 1) * t),
                            asking.pattern.block, m / asking.pattern.block, places);
      each(ByPlace{kernels::HeadSlice(shape_of(1, n * t, m), g * group, (g + 1) * group), places,
                   ranges, queries, keys});
    }
}

void BlockAttention::forward(const kernels::BlockQueries& asking,
                             kernels::DocumentStarts document_starts, const AttentionInputs& inputs,
                             const TensorView& sums, const TensorView& lse,
                             const kernels::Poll& poll) {
  const kernels::BlockCounts counts = kernels::count_blocks(asking, document_starts);
  if (asking.pattern.chosen_blocks > 0) choose(asking, inputs);
  if (counts.whole == 0) return;
  if (asking.pattern.summaries > 0) {
    const Summaries summaries = summarize(asking, inputs);
    const double pairs = counts.whole * static_cast<double>(asking.pattern.summaries);
    kernels::attention_forward(shape_of(sizes_.num_sequences, num_positions(asking.queries),
                                        summaries.keys.rows() / sizes_.num_sequences),
                               inputs.q, summaries.keys, summaries.values,
                               ranges_of_summaries(asking, pairs), sums, lse,
                               kernels::Merge::with_before, workspace_, poll);
  }
  if (asking.pattern.chosen_blocks == 0) return;
  const double num_pairs = counts.chosen * static_cast<double>(asking.pattern.block);
  for_each_choice(asking, inputs, num_pairs, [&](const ByPlace& by_place) {
    const kernels::HeadSlice& heads = by_place.heads;
    const std::int64_t num_places = by_place.places.places.numel();
    const TensorView partial = partial_->slice_rows(0, num_places);
    const TensorView partial_lse = partial_lse_->slice_rows(0, num_places);
    kernels::attention_forward(heads.shape(), heads.queries(rows_at(inputs.q, by_place.queries)),
                               heads.keys(rows_at(inputs.k, by_place.keys)),
                               heads.keys(rows_at(inputs.v, by_place.keys)), by_place.ranges,
                               partial, partial_lse, kernels::Merge::replace, workspace_, poll);
    kernels::merge_choices(partial, partial_lse, by_place.places.places,
                           heads.queries(rows_at(sums, by_place.queries)),
                           heads.row_values(rows_at(lse, by_place.queries)));
  });
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
  const double num_pairs = counts.chosen * static_cast<double>(asking.pattern.block);
  for_each_choice(asking, inputs, num_pairs, [&](const ByPlace& by_place) {
    const kernels::HeadSlice& heads = by_place.heads;
    const PositionRange& queries = by_place.queries;
    const TensorView partial = partial_->slice_rows(0, by_place.places.places.numel());
    kernels::attention_backward(heads.shape(), heads.queries(rows_at(inputs.q, queries)),
                                heads.keys(rows_at(inputs.k, by_place.keys)),
                                heads.keys(rows_at(inputs.v, by_place.keys)), by_place.ranges,
                                heads.row_values(rows_at(results.lse, queries)),
                                heads.row_values(rows_at(results.delta, queries)),
                                heads.queries(rows_at(results.dout, queries)),
                                {.dq = partial,
                                 .dk = heads.keys(rows_at(sums.k, by_place.keys)),
                                 .dv = heads.keys(rows_at(sums.v, by_place.keys)),
                                 .dkv_merge = kernels::Merge::with_before},
                                workspace_, poll);
    kernels::add_choices(partial, by_place.places.places, heads.queries(rows_at(sums.q, queries)));
  });
}

}  // namespace switchyard
