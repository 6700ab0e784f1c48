#include "parallel/context/class_attention.hpp"

#include <algorithm>

namespace switchyard {

namespace {

TensorView rows_at(const TensorView& view, const PositionRange& rows) {
  return view.slice_rows(rows.begin, rows.end());
}

}  // namespace

ClassAttention::ClassAttention(Device& device, const AttentionSizes& sizes, DType compute,
                               std::span<const kernels::KeyPattern> patterns,
                               std::int64_t max_queries, std::int64_t max_keys)
    : sizes_(sizes) {
  std::int64_t rounds = 0, bytes = 0;
  for (const kernels::KeyPattern& pattern : patterns) {
    rounds = std::max(rounds, pattern.hash_rounds);
    const kernels::HeadSlice head(shape_of(pattern, max_queries, max_keys), 0, 1);
    bytes =
        std::max(bytes, kernels::attention_workspace_bytes(head.shape(), compute, device.target()));
  }
  const auto make = [&](DType dtype, const Shape& dims) {
    return Tensor(device, Purpose::workspace, dtype, dims);
  };
  buckets_ = make(DType::i32, {sizes.num_sequences * max_keys, rounds * sizes.num_heads});
  for (Tensor* each : {&query_rows_, &first_keys_, &end_}) *each = make(DType::i32, {max_queries});
  key_rows_ = make(DType::i32, {max_keys});
  workspace_ = make(DType::u8, {bytes});
}

kernels::AttentionShape ClassAttention::shape_of(const kernels::KeyPattern& pattern,
                                                 std::int64_t num_queries,
                                                 std::int64_t num_keys) const {
  return {.num_sequences = 1,
          .query_length = num_queries,
          .key_length = num_keys,
          .num_heads = sizes_.num_heads,
          .num_kv_heads = sizes_.num_kv_heads,
          .head_dim = sizes_.head_dim,
          .scale = sizes_.scale,
          .query_block = pattern.class_window};
}

template <class Each>
void ClassAttention::for_each_class(const kernels::BlockQueries& asking,
                                    const AttentionInputs& inputs, Each each) const {
  const kernels::KeyPattern& pattern = asking.pattern;
  const std::int64_t n = num_positions(asking.queries);
  const std::int64_t m = inputs.k.rows() / asking.num_sequences;
  const TensorView buckets = buckets_->slice_rows(0, inputs.k.rows())
                                 .slice_cols(0, pattern.hash_rounds * sizes_.num_heads);
  kernels::hash_keys(inputs.k, sizes_.head_dim, inputs.directions, pattern.num_buckets, buckets);
  const kernels::ClassPlaces places{query_rows_->slice_rows(0, n), key_rows_->slice_rows(0, m),
                                    first_keys_->slice_rows(0, n), end_->slice_rows(0, n)};
  const kernels::KeyRanges ranges{
      .first = places.first,
      .end = places.end,
      .num_pairs = kernels::count_class_pairs(pattern, asking.queries, 1),
      .query_rows = places.query_rows,
      .key_rows = places.key_rows};
  for (std::int64_t s = 0; s < asking.num_sequences; ++s)
    for (std::int64_t h = 0; h < sizes_.num_heads; ++h)
      for (std::int64_t round = 0; round < pattern.hash_rounds; ++round) {
        const PositionRange queries{s * n, n}, keys{s * m, m};
        kernels::sort_classes(
            {.pattern = pattern,
             .queries = asking.queries,
             .head = h,
             .num_heads = sizes_.num_heads,
             .document_begins = asking.document_begins.empty()
                                    ? TensorView{}
                                    : asking.document_begins.slice_rows(s, s + 1)},
            rows_at(buckets, keys), round, places);
        each(Sorted{kernels::HeadSlice(shape_of(pattern, n, m), h, h + 1), ranges, queries, keys,
                    round == 0});
      }
}

void ClassAttention::forward(const kernels::BlockQueries& asking, const AttentionInputs& inputs,
                             const TensorView& sums, const TensorView& lse,
                             const kernels::Poll& poll) {
  for_each_class(asking, inputs, [&](const Sorted& sorted) {
    const kernels::HeadSlice& heads = sorted.heads;
    kernels::attention_forward(
        heads.shape(), heads.queries(rows_at(inputs.q, sorted.queries)),
        heads.keys(rows_at(inputs.k, sorted.keys)), heads.keys(rows_at(inputs.v, sorted.keys)),
        sorted.ranges, heads.queries(rows_at(sums, sorted.queries)),
        heads.row_values(rows_at(lse, sorted.queries)),
        sorted.is_first ? kernels::Merge::replace : kernels::Merge::with_before, workspace_, poll);
  });
}

void ClassAttention::backward(const kernels::BlockQueries& asking, const AttentionInputs& inputs,
                              const AttentionResults& results, const AttentionRowGradients& sums,
                              const kernels::Poll& poll) {
  for_each_class(asking, inputs, [&](const Sorted& sorted) {
    const kernels::HeadSlice& heads = sorted.heads;
    kernels::attention_backward(heads.shape(), heads.queries(rows_at(inputs.q, sorted.queries)),
                                heads.keys(rows_at(inputs.k, sorted.keys)),
                                heads.keys(rows_at(inputs.v, sorted.keys)), sorted.ranges,
                                heads.row_values(rows_at(results.lse, sorted.queries)),
                                heads.row_values(rows_at(results.delta, sorted.queries)),
                                heads.queries(rows_at(results.dout, sorted.queries)),
                                {.dq = heads.queries(rows_at(sums.q, sorted.queries)),
                                 .dk = heads.keys(rows_at(sums.k, sorted.keys)),
                                 .dv = heads.keys(rows_at(sums.v, sorted.keys)),
                                 .dq_merge = kernels::Merge::with_before,
                                 .dkv_merge = kernels::Merge::with_before},
                                workspace_, poll);
  });
}

}  // namespace switchyard
