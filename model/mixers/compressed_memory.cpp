#include "model/mixers/compressed_memory.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/attention/attention_merge.hpp"
#include "kernels/host_copy.hpp"
#include "kernels/rows/elementwise.hpp"
#include "model/parameter_spec.hpp"
#include "model/rope_spec.hpp"

namespace switchyard {

namespace {

std::int64_t qkv_cols(const ModelConfig& model) {
  return model.query_cols() + 2 * model.key_cols();
}

// What a query sees of the groups, or of the rows that just left the memory.
enum class MemoryPart : std::uint8_t { seen, left_rows, left_groups };

PositionRange part_of(MemoryPart part, const MixerConfig& mixer, std::int64_t position,
                      std::int64_t document_begin) {
  const std::int64_t ratio = mixer.ratio;
  const std::int64_t left =  // the first row that the memory still has
      std::max<std::int64_t>(position / mixer.length * mixer.length - mixer.memory, 0);
  const std::int64_t unit = part == MemoryPart::left_rows ? 1 : ratio;
  const std::int64_t count = part == MemoryPart::seen ? mixer.compressed : mixer.length / unit;
  const std::int64_t end = left / unit;
  const std::int64_t of_document = (document_begin + unit - 1) / unit;
  const std::int64_t first = std::min(std::max(end - count, of_document), end);
  return {first, end - first};
}

// What each position sees; returns how many pairs these are. document_begin(sequence, position)
template <class DocumentBegin>
double write_ranges(MemoryPart part, const MixerConfig& mixer, std::int64_t num_sequences,
                    const PositionRange& positions, const TensorView& first_key,
                    const TensorView& end_key, DocumentBegin&& document_begin) {
  std::vector<std::int32_t> first, end;
  double num_pairs = 0;
  for (std::int64_t s = 0; s < num_sequences; ++s)
    for (std::int64_t p = positions.begin; p < positions.end(); ++p) {
      const PositionRange range = part_of(part, mixer, p, document_begin(s, p));
      first.push_back(static_cast<std::int32_t>(range.begin));
      end.push_back(static_cast<std::int32_t>(range.end()));
      num_pairs += static_cast<double>(range.count);
    }
  kernels::copy_from_host<std::int32_t>(first, first_key);
  kernels::copy_from_host<std::int32_t>(end, end_key);
  return num_pairs;
}

kernels::KeyRanges view_of(const CompressedMemory::Ranges& ranges) {
  return {.first = ranges.first, .end = ranges.end, .num_pairs = ranges.num_pairs};
}

}  // namespace

CompressedMemory::CompressedMemory(ParameterStore& store, const std::string& prefix,
                                   const ModelConfig& model, const MixerConfig& mixer,
                                   DType compute)
    : device_(store.device()),
      model_(model),
      mixer_(mixer),
      compute_(compute),
      // Pooled rows begin as large as rows are.
      weight_(store.add(
          weight_spec(prefix + ".compression.weight", {model.hidden, mixer.ratio * model.hidden},
                      "model.mixer, model.hidden",
                      1 / std::sqrt(static_cast<double>(mixer.ratio * model.hidden))))),
      packed_(store.device(), model.hidden, mixer.ratio * model.hidden, compute, false) {}

CompressedMemory::Scratch CompressedMemory::make_scratch(std::int64_t num_sequences,
                                                         std::int64_t length) const {
  const auto make = [&](DType type, const Shape& dims) {
    return Tensor(device_, Purpose::workspace, type, dims);
  };
  const std::int64_t num_tokens = num_sequences * length;
  const std::int64_t num_groups =
      std::max<std::int64_t>(1, num_sequences * (length / mixer_.ratio));
  const Shape queries = {num_tokens, model_.query_cols()};
  Scratch scratch;
  scratch.mixer = mixer_;
  scratch.num_sequences = num_sequences;
  scratch.length = length;
  for (Ranges* ranges : {&scratch.seen, &scratch.left_rows, &scratch.left_groups}) {
    ranges->first = make(DType::i32, {num_tokens});
    ranges->end = make(DType::i32, {num_tokens});
  }
  scratch.set_documents({});
  scratch.pooled = make(compute_, {num_groups, model_.hidden});
  scratch.projected = make(compute_, {num_groups, qkv_cols(model_)});
  scratch.out = make(DType::f32, queries);
  scratch.lse = make(DType::f32, {num_tokens, model_.num_heads});
  scratch.delta = make(DType::f32, {num_tokens, model_.num_heads});
  scratch.workspace =
      make(DType::u8, {kernels::attention_workspace_bytes(shape(num_sequences, length, length),
                                                          compute_, device_.target())});
  scratch.dq = make(compute_, queries);
  scratch.difference = make(DType::f32, queries);
  scratch.d_pooled = make(compute_, {num_groups, model_.hidden});
  scratch.d_projected = make(compute_, {num_groups, qkv_cols(model_)});
  return scratch;
}

CompressedMemory::Scratch CompressedMemory::make_extend_scratch(std::int64_t num_tokens,
                                                                std::int64_t max_length) const {
  const auto make = [&](DType type, const Shape& dims) {
    return Tensor(device_, Purpose::workspace, type, dims);
  };
  const std::int64_t rows = mixer_.ratio - 1 + num_tokens;
  Scratch scratch;
  scratch.seen.first = make(DType::i32, {num_tokens});
  scratch.seen.end = make(DType::i32, {num_tokens});
  scratch.rows = make(compute_, {rows, model_.hidden});
  scratch.pooled = make(compute_, {std::max<std::int64_t>(1, rows / mixer_.ratio), model_.hidden});
  scratch.out = make(DType::f32, {num_tokens, model_.query_cols()});
  scratch.lse = make(DType::f32, {num_tokens, model_.num_heads});
  scratch.workspace = make(
      DType::u8, {kernels::attention_workspace_bytes(
                     shape(1, num_tokens, std::max<std::int64_t>(1, max_length / mixer_.ratio)),
                     compute_, device_.target())});
  return scratch;
}

CompressedMemory::Cache CompressedMemory::make_cache(std::int64_t max_length) const {
  Cache cache;
  cache.projected =
      Tensor(device_, Purpose::activation, compute_,
             {std::max<std::int64_t>(1, max_length / mixer_.ratio), qkv_cols(model_)});
  if (mixer_.ratio > 1)
    cache.rows = Tensor(device_, Purpose::activation, compute_, {mixer_.ratio - 1, model_.hidden});
  return cache;
}

void CompressedMemory::Scratch::set_documents(kernels::DocumentStarts document_starts) {
  const auto begin_of = [&](std::int64_t sequence, std::int64_t position) -> std::int64_t {
    if (document_starts.empty()) return 0;
    const std::vector<std::int32_t>& starts = document_starts[static_cast<std::size_t>(sequence)];
    const auto after = std::upper_bound(starts.begin(), starts.end(), position);
    return after == starts.begin() ? 0 : *(after - 1);
  };
  const PositionRange positions{0, length};
  const auto fill = [&](MemoryPart part, Ranges& ranges) {
    ranges.num_pairs =
        write_ranges(part, mixer, num_sequences, positions, ranges.first, ranges.end, begin_of);
  };
  fill(MemoryPart::seen, seen);
  fill(MemoryPart::left_rows, left_rows);
  fill(MemoryPart::left_groups, left_groups);
}

void CompressedMemory::pack_weights() {
  packed_.pack(weight_.value());
}

CompressedMemory::KeysAndValues CompressedMemory::keys_of(const TensorView& projected) const {
  const std::int64_t k_begin = model_.query_cols(), v_begin = k_begin + model_.key_cols();
  return {projected.slice_cols(k_begin, v_begin), projected.slice_cols(v_begin, projected.cols())};
}

TensorView CompressedMemory::groups_of(const TensorView& rows) const {
  return rows.reshape({rows.rows() / mixer_.ratio, mixer_.ratio * model_.hidden});
}

template <class Body>
void CompressedMemory::for_each_sequence(const TensorView& x, const Scratch& scratch,
                                         Body&& body) const {
  const std::int64_t groups = num_groups(scratch);
  if (scratch.length % mixer_.ratio == 0)
    return body(groups_of(x), 0, scratch.num_sequences * groups);
  for (std::int64_t s = 0; s < scratch.num_sequences; ++s) {
    const std::int64_t first = s * scratch.length;
    body(groups_of(x.slice_rows(first, first + groups * mixer_.ratio)), s * groups,
         (s + 1) * groups);
  }
}

void CompressedMemory::pool(const TensorView& x, const kernels::PackedWeight& qkv,
                            const Scratch& scratch) const {
  for_each_sequence(
      x, scratch, [&](const TensorView& groups, std::int64_t first, std::int64_t end) {
        kernels::linear_forward(groups, packed_, scratch.pooled->slice_rows(first, end));
      });
  kernels::linear_forward(scratch.pooled, qkv, scratch.projected);
}

kernels::AttentionShape CompressedMemory::shape(std::int64_t num_sequences, std::int64_t queries,
                                                std::int64_t keys) const {
  return {.num_sequences = num_sequences,
          .query_length = queries,
          .key_length = keys,
          .num_heads = model_.num_heads,
          .num_kv_heads = model_.num_kv_heads,
          .head_dim = model_.effective_head_dim(),
          .scale = attention_scale(model_)};
}

void CompressedMemory::forward(const TensorView& x, const kernels::PackedWeight& qkv,
                               const Attended& attended, const Scratch& scratch) const {
  if (num_groups(scratch) == 0) return;
  pool(x, qkv, scratch);
  const auto [k, v] = keys_of(scratch.projected);
  kernels::attention_forward(shape(scratch.num_sequences, scratch.length, num_groups(scratch)),
                             attended.q, k, v, view_of(scratch.seen), scratch.out, scratch.lse,
                             kernels::Merge::replace, scratch.workspace);
  kernels::attention_merge(scratch.out, scratch.lse, model_.effective_head_dim(), attended.out,
                           attended.lse);
}

void CompressedMemory::backward(const TensorView& x, const kernels::PackedWeight& packed_qkv,
                                Parameter& qkv, const Attended& attended, const TensorView& dout,
                                const TensorView& dq, const Scratch& scratch,
                                const LayerContext& context) const {
  if (num_groups(scratch) == 0) return context.gradient_ready(weight_);
  pool(x, packed_qkv, scratch);
  const auto [k, v] = keys_of(scratch.projected);
  const auto [dk, dv] = keys_of(scratch.d_projected);
  kernels::fill_zero(scratch.d_projected);  // no queries are made of groups
  kernels::attention_delta(attended.out, dout, model_.effective_head_dim(), scratch.delta);
  kernels::attention_backward(shape(scratch.num_sequences, scratch.length, num_groups(scratch)),
                              attended.q, k, v, view_of(scratch.seen), attended.lse, scratch.delta,
                              dout, {.dq = scratch.dq, .dk = dk, .dv = dv}, scratch.workspace);
  kernels::add(dq, scratch.dq, dq);
  kernels::linear_backward_weight(scratch.d_projected, scratch.pooled, qkv.gradient_sum());
  reconstruct(x, packed_qkv, attended, scratch, context);
}

void CompressedMemory::reconstruct(const TensorView& x, const kernels::PackedWeight& packed_qkv,
                                   const Attended& attended, const Scratch& scratch,
                                   const LayerContext& context) const {
  const std::int64_t length = scratch.length;
  const auto [k, v] = keys_of(scratch.projected);
  const auto [dk, dv] = keys_of(scratch.d_projected);
  kernels::attention_forward(shape(scratch.num_sequences, length, length), attended.q, attended.k,
                             attended.v, view_of(scratch.left_rows), scratch.difference,
                             scratch.lse, kernels::Merge::replace, scratch.workspace);
  kernels::scale(scratch.difference, -1);
  const kernels::AttentionShape of_groups =
      shape(scratch.num_sequences, length, num_groups(scratch));
  kernels::attention_forward(of_groups, attended.q, k, v, view_of(scratch.left_groups), scratch.out,
                             scratch.lse, kernels::Merge::replace, scratch.workspace);
  // 2 / tokens of the step times the difference, in the type of queries.
  kernels::add(scratch.difference, scratch.out, scratch.difference);
  kernels::scale(scratch.difference, static_cast<float>(2 / context.pass.num_global_tokens));
  kernels::copy(scratch.difference, scratch.dq);
  kernels::attention_delta(scratch.out, scratch.dq, model_.effective_head_dim(), scratch.delta);
  kernels::attention_backward(of_groups, attended.q, k, v, view_of(scratch.left_groups),
                              scratch.lse, scratch.delta, scratch.dq,
                              {.dq = {}, .dk = dk, .dv = dv}, scratch.workspace);
  kernels::linear_backward_input(scratch.d_projected, packed_qkv, scratch.d_pooled);
  for_each_sequence(x, scratch,
                    [&](const TensorView& groups, std::int64_t first, std::int64_t end) {
                      kernels::linear_backward_weight(scratch.d_pooled->slice_rows(first, end),
                                                      groups, weight_.gradient_sum());
                    });
  context.gradient_ready(weight_);
}

void CompressedMemory::extend(const TensorView& x, const kernels::PackedWeight& qkv,
                              const Attended& attended, std::int64_t num_cached, const Cache& cache,
                              const Scratch& scratch) const {
  const std::int64_t ratio = mixer_.ratio, num_tokens = x.rows();
  const std::int64_t open = num_cached % ratio, rows = open + num_tokens;
  const std::int64_t before = num_cached / ratio, count = rows / ratio;
  const TensorView& all = scratch.rows;
  if (open > 0) kernels::copy(cache.rows->slice_rows(0, open), all.slice_rows(0, open));
  kernels::copy(x, all.slice_rows(open, rows));
  if (count > 0) {
    const TensorView pooled = scratch.pooled->slice_rows(0, count);
    kernels::linear_forward(groups_of(all.slice_rows(0, count * ratio)), packed_, pooled);
    kernels::linear_forward(pooled, qkv, cache.projected->slice_rows(before, before + count));
  }
  if (const std::int64_t left = rows % ratio; left > 0)
    kernels::copy(all.slice_rows(rows - left, rows), cache.rows->slice_rows(0, left));
  if (before + count == 0) return;
  const TensorView first = scratch.seen.first->slice_rows(0, num_tokens);
  const TensorView end = scratch.seen.end->slice_rows(0, num_tokens);
  const double num_pairs =
      write_ranges(MemoryPart::seen, mixer_, 1, {num_cached, num_tokens}, first, end,
                   [](std::int64_t, std::int64_t) { return std::int64_t{0}; });
  const auto [k, v] = keys_of(cache.projected->slice_rows(0, before + count));
  kernels::attention_forward(shape(1, num_tokens, before + count), attended.q, k, v,
                             {.first = first, .end = end, .num_pairs = num_pairs}, scratch.out,
                             scratch.lse, kernels::Merge::replace, scratch.workspace);
  kernels::attention_merge(scratch.out, scratch.lse, model_.effective_head_dim(), attended.out,
                           attended.lse);
}

}  // namespace switchyard
