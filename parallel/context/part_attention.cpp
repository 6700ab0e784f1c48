#include "parallel/context/part_attention.hpp"

#include <algorithm>

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
                   .num_parameters = sizes.num_bias_parameters}};
}

}  // namespace

PartAttention::PartAttention(Device& device, const AttentionSizes& sizes, DType compute,
                             std::int64_t max_queries, std::int64_t max_keys, std::int64_t length)
    : device_(device),
      sizes_(sizes),
      compute_(compute),
      length_(length),
      workspace_(device, Purpose::workspace, DType::u8,
                 {kernels::attention_workspace_bytes(shape_with(sizes, max_queries, max_keys),
                                                     compute, device.target())}) {}

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
    return shape;
  }
  kernels::AttentionShape whole = shape_with(sizes_, length_, length_);
  whole.held_queries = part.queries;
  whole.held_keys = part.keys;
  whole.bias.values = inputs.bias;
  return whole;
}

void PartAttention::make(const PartKey& part, MadeRanges& ranges) const {
  if (ranges.first.empty()) {
    const Shape rows = {part.pattern.num_sets() * sizes_.num_sequences *
                        num_positions(part.queries)};
    ranges.first = Tensor(device_, Purpose::workspace, DType::i32, rows);
    ranges.end = Tensor(device_, Purpose::workspace, DType::i32, rows);
  }
  const kernels::VisibleKeys visible{.queries = part.queries,
                                     .keys = part.keys,
                                     .window = part.pattern.window,
                                     .num_sequences = sizes_.num_sequences,
                                     .globals = part.pattern.globals,
                                     .first_query = part.first_query,
                                     .end_query = part.end_query};
  kernels::fill_key_ranges(visible,
                           document_starts_.empty() ? TensorView{} : document_begins_.view(),
                           ranges.first, ranges.end);
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
                                           .window = share.pattern.window,
                                           .num_sequences = sizes_.num_sequences,
                                           .globals = share.pattern.globals},
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
  return {ranges.first, ranges.end, ranges.num_pairs, part.pattern.num_sets()};
}

bool PartAttention::forward(const AttentionPart& part, const AttentionInputs& inputs,
                            const TensorView& out, const TensorView& lse, kernels::Merge merge,
                            const kernels::Poll& poll) {
  const kernels::KeyRanges ranges = ranges_of(part);
  if (ranges.num_pairs == 0 && merge == kernels::Merge::with_before) return false;
  kernels::attention_forward(shape_of(part, inputs), inputs.q, inputs.k, inputs.v, ranges, out, lse,
                             merge, workspace_, poll);
  return true;
}

bool PartAttention::backward(const AttentionPart& part, const AttentionInputs& inputs,
                             const AttentionResults& results,
                             const kernels::AttentionGradients& gradients,
                             const kernels::Poll& poll) {
  const kernels::KeyRanges ranges = ranges_of(part);
  if (ranges.num_pairs == 0) return false;
  kernels::attention_backward(shape_of(part, inputs), inputs.q, inputs.k, inputs.v, ranges,
                              results.lse, results.delta, results.dout, gradients, workspace_,
                              poll);
  return true;
}

}  // namespace switchyard
