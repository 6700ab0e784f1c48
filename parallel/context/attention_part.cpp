#include "parallel/context/attention_part.hpp"

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
          .scale = sizes.scale};
}

}  // namespace

AttentionPartKernel::AttentionPartKernel(Device& device, const AttentionSizes& sizes, DType compute,
                                         std::int64_t max_queries, std::int64_t max_keys)
    : device_(device),
      sizes_(sizes),
      compute_(compute),
      first_(device, Purpose::workspace, DType::i32, {sizes.num_sequences * max_queries}),
      end_(device, Purpose::workspace, DType::i32, {sizes.num_sequences * max_queries}),
      workspace_(device, Purpose::workspace, DType::u8,
                 {kernels::attention_workspace_bytes(shape_with(sizes, max_queries, max_keys),
                                                     compute, kernels::num_threads())}) {}

void AttentionPartKernel::set_documents(DocumentStarts document_starts) {
  document_starts_.assign(document_starts.begin(), document_starts.end());
}

kernels::AttentionShape AttentionPartKernel::shape_of(const AttentionPart& part) const {
  return shape_with(sizes_, num_positions(part.queries), part.key_length);
}

kernels::KeyRanges AttentionPartKernel::ranges_of(const AttentionPart& part) const {
  const std::int64_t num_queries = num_positions(part.queries);
  VisibleKeys visible{.queries = part.queries,
                      .keys = part.keys,
                      .window = part.window,
                      .document_starts = document_starts_,
                      .num_sequences = sizes_.num_sequences};
  const std::int64_t num_rows = sizes_.num_sequences * num_queries;
  const TensorView first = first_->slice_rows(0, num_rows);
  const TensorView end = end_->slice_rows(0, num_rows);
  if (!device_.is_plan()) {
    fill_key_ranges(visible, first.as<std::int32_t>(), end.as<std::int32_t>());
    blind_other_queries(part);
  }
  const std::vector<Segment> seeing =
      slice_of(part.queries, part.first_query, std::min(part.end_query, num_queries));
  visible.queries = seeing;
  return {first, end, count_pairs(visible)};
}

// Ranges never decrease within a sequence, empty ones neither.
void AttentionPartKernel::blind_other_queries(const AttentionPart& part) const {
  const std::int64_t num_queries = num_positions(part.queries);
  const std::int64_t end_query = std::min(part.end_query, num_queries);
  for (std::int64_t s = 0; s < sizes_.num_sequences; ++s) {
    std::int32_t* first = first_->as<std::int32_t>() + s * num_queries;
    std::int32_t* end = end_->as<std::int32_t>() + s * num_queries;
    for (std::int64_t i = 0; i < part.first_query; ++i) end[i] = first[i];
    for (std::int64_t i = end_query; i < num_queries; ++i) first[i] = end[i];
  }
}

bool AttentionPartKernel::forward(const AttentionPart& part, const AttentionInputs& inputs,
                                  const TensorView& out, const TensorView& lse,
                                  kernels::Merge merge, const kernels::Poll& poll) {
  const kernels::KeyRanges ranges = ranges_of(part);
  if (ranges.num_pairs == 0 && merge == kernels::Merge::with_before) return false;
  kernels::attention_forward(shape_of(part), inputs.q, inputs.k, inputs.v, ranges, out, lse, merge,
                             workspace_, poll);
  return true;
}

bool AttentionPartKernel::backward(const AttentionPart& part, const AttentionInputs& inputs,
                                   const AttentionResults& results,
                                   const kernels::AttentionGradients& gradients,
                                   const kernels::Poll& poll) {
  const kernels::KeyRanges ranges = ranges_of(part);
  if (ranges.num_pairs == 0) return false;
  kernels::attention_backward(shape_of(part), inputs.q, inputs.k, inputs.v, ranges, results.lse,
                              results.delta, results.dout, gradients, workspace_, poll);
  return true;
}

}  // namespace switchyard
