#include "parallel/context/part_attention.hpp"

#include <algorithm>

#include "kernels/attention/head_slice.hpp"
#include "kernels/host_copy.hpp"
#include "kernels/rows/elementwise.hpp"

namespace switchyard {

namespace {

kernels::AttentionShape shape_with(const AttentionSizes& sizes, std::int64_t num_queries,
                                   std::int64_t num_keys) {
  return {.num_sequences = sizes.num_sequences,
          .query_length = num_queries,
          .key_length = num_keys,
          .num_heads = sizes.num_heads,
          .num_kv_heads = sizes.num_kv_heads,
          .head_dim = sizes.head_dim,
          .scale = sizes.scale,
          .slopes = sizes.slopes,
          .bias = {.values = {},
                   .parameters = sizes.bias_parameters,
                   .num_parameters = sizes.num_bias_parameters},
          .num_distances = sizes.num_distances};
}

void fill_zero(const kernels::AttentionGradients& gradients) {
  for (const TensorView* each :
       {&gradients.dq, &gradients.dk, &gradients.dv, &gradients.dp, &gradients.dbias})
    if (each->device != nullptr) kernels::fill_zero(*each);
}

// What all its calls may need.
std::int64_t workspace_bytes(Device& device, const AttentionSizes& sizes, DType compute,
                             std::span<const kernels::KeyPattern> patterns,
                             std::int64_t max_queries, std::int64_t max_keys) {
  std::int64_t most = 0;
  for (const kernels::KeyPattern& pattern : patterns)
    for (const kernels::HeadShare& heads :
         kernels::head_shares(pattern, 2, 0, 2)) {  // both halves, if there are halves
      kernels::AttentionShape shape = shape_with(sizes, max_queries, max_keys);
      shape.query_block = kernels::query_block(heads.pattern, max_queries);
      most = std::max(most, kernels::attention_workspace_bytes(shape, compute, device.target()));
    }
  return most;
}

}  // namespace

PartAttention::PartAttention(Device& device, const AttentionSizes& sizes, DType compute,
                             std::span<const kernels::KeyPattern> patterns,
                             std::int64_t max_queries, std::int64_t max_keys, std::int64_t length)
    : device_(device),
      sizes_(sizes),
      compute_(compute),
      length_(length),
      workspace_(device, Purpose::workspace, DType::u8,
                 {workspace_bytes(device, sizes, compute, patterns, max_queries, max_keys)}) {}

void PartAttention::set_documents(kernels::DocumentStarts document_starts) {
  document_starts_.assign(document_starts.begin(), document_starts.end());
  for (auto& [part, ranges] : made_) ranges.is_current = false;
  if (document_starts.empty()) return;
  if (document_begins_.empty())
    document_begins_ =
        Tensor(device_, Purpose::workspace, DType::i32, {sizes_.num_sequences, length_});
  kernels::fill_document_begins(document_starts, document_begins_);
}

kernels::AttentionShape PartAttention::shape_of(const AttentionPart& part,
                                                const AttentionInputs& inputs) const {
  if (!part.of_whole_sequences) {
    kernels::AttentionShape shape =
        shape_with(sizes_, num_positions(part.queries), part.key_length);
    shape.query_positions = part.queries;
    shape.key_positions = part.keys;
    shape.bias.values = inputs.bias;
    shape.distance_queries = inputs.distance_queries;
    shape.distance_keys = inputs.distance_keys;
    shape.query_block = kernels::query_block(part.pattern, shape.query_length);
    return shape;
  }
  kernels::AttentionShape whole = shape_with(sizes_, length_, length_);
  whole.held_queries = part.queries;
  whole.held_keys = part.keys;
  whole.bias.values = inputs.bias;
  whole.query_block = kernels::query_block(part.pattern, length_);
  return whole;
}

Tensor PartAttention::rows_in_order(const kernels::RowOrder& order) const {
  Tensor rows(device_, Purpose::workspace, DType::i32, {order.num_places()});
  kernels::copy_from_host<std::int32_t>(order.rows(), rows);
  return rows;
}

void PartAttention::make(const PartKey& part, MadeRanges& ranges) const {
  if (ranges.first.empty()) {
    const Shape rows = {part.pattern.num_sets() * sizes_.num_sequences *
                        num_positions(part.queries)};
    ranges.first = Tensor(device_, Purpose::workspace, DType::i32, rows);
    ranges.end = Tensor(device_, Purpose::workspace, DType::i32, rows);
    if (part.pattern.orders_queries())
      ranges.query_rows = rows_in_order(kernels::query_order(part.pattern, part.queries));
    if (part.pattern.orders_keys())
      ranges.key_rows = rows_in_order(kernels::key_order(part.pattern, part.keys));
  }
  const kernels::VisibleKeys visible{.queries = part.queries,
                                     .keys = part.keys,
                                     .pattern = part.pattern,
                                     .num_sequences = sizes_.num_sequences,
                                     .first_query = part.first_query,
                                     .end_query = part.end_query};
  kernels::fill_key_ranges(visible, document_begins(), ranges.first, ranges.end);
  ranges.num_pairs = kernels::count_pairs(visible, document_starts_);
  ranges.is_current = true;
}

// All shares of the sequences read the same ranges.
kernels::KeyRanges PartAttention::ranges_of_whole(const AttentionPart& share) {
  const PositionRange all{0, length_};
  kernels::KeyRanges ranges =
      ranges_of({.queries = {&all, 1}, .keys = {&all, 1}, .pattern = share.pattern});
  ranges.num_pairs = kernels::count_pairs({.queries = share.queries,
                                           .keys = share.keys,
                                           .pattern = share.pattern,
                                           .num_sequences = sizes_.num_sequences},
                                          document_starts_);
  return ranges;
}

kernels::KeyRanges PartAttention::ranges_of(const AttentionPart& part) {
  if (part.of_whole_sequences) return ranges_of_whole(part);
  const auto made = made_
                        .try_emplace({.keys = {part.keys.begin(), part.keys.end()},
                                      .queries = {part.queries.begin(), part.queries.end()},
                                      .pattern = part.pattern,
                                      .first_query = part.first_query,
                                      .end_query = part.end_query})
                        .first;
  MadeRanges& ranges = made->second;
  if (!ranges.is_current) make(made->first, ranges);
  const auto rows_of = [](const Tensor& rows) { return rows.empty() ? TensorView{} : rows.view(); };
  return {.first = ranges.first,
          .end = ranges.end,
          .num_pairs = ranges.num_pairs,
          .num_sets = part.pattern.num_sets(),
          .ascends = part.pattern.ascends(),
          .query_rows = rows_of(ranges.query_rows),
          .key_rows = rows_of(ranges.key_rows)};
}

std::vector<kernels::HeadShare> PartAttention::shares_of(const AttentionPart& part) const {
  return kernels::head_shares(part.pattern, sizes_.num_heads, sizes_.first_head,
                              sizes_.all_heads > 0 ? sizes_.all_heads : sizes_.num_heads);
}

bool PartAttention::forward(const AttentionPart& part, const AttentionInputs& inputs,
                            const TensorView& out, const TensorView& lse, kernels::Merge merge,
                            const kernels::Poll& poll) {
  bool is_seen = false;
  AttentionPart of_heads = part;
  for (const kernels::HeadShare& heads : shares_of(part)) {
    of_heads.pattern = heads.pattern;
    const kernels::KeyRanges ranges = ranges_of(of_heads);
    if (ranges.num_pairs == 0 && merge == kernels::Merge::with_before) continue;
    const kernels::HeadSlice slice(shape_of(of_heads, inputs), heads.begin, heads.end);
    kernels::attention_forward(slice.shape(), slice.queries(inputs.q), slice.keys(inputs.k),
                               slice.keys(inputs.v), ranges, slice.queries(out),
                               slice.row_values(lse), merge, workspace_, poll);
    is_seen = true;
  }
  return is_seen;
}

bool PartAttention::backward(const AttentionPart& part, const AttentionInputs& inputs,
                             const AttentionResults& results,
                             const kernels::AttentionGradients& gradients,
                             const kernels::Poll& poll) {
  bool is_seen = false;
  AttentionPart of_heads = part;
  for (const kernels::HeadShare& heads : shares_of(part)) {
    of_heads.pattern = heads.pattern;
    const kernels::KeyRanges ranges = ranges_of(of_heads);
    const kernels::HeadSlice slice(shape_of(of_heads, inputs), heads.begin, heads.end);
    if (ranges.num_pairs == 0) {
      if (part.writes_zeros) fill_zero(slice.gradients(gradients));
      continue;
    }
    kernels::attention_backward(slice.shape(), slice.queries(inputs.q), slice.keys(inputs.k),
                                slice.keys(inputs.v), ranges, slice.row_values(results.lse),
                                slice.row_values(results.delta), slice.queries(results.dout),
                                slice.gradients(gradients), workspace_, poll);
    is_seen = true;
  }
  return is_seen;
}

}  // namespace switchyard
