// Attention in generation: the keys and values that it keeps, and how it goes on from them.
#include <algorithm>

#include "kernels/attention/attention_sink.hpp"
#include "kernels/attention/head_slice.hpp"
#include "kernels/host_copy.hpp"
#include "kernels/rows/elementwise.hpp"
#include "model/mixers/attention.hpp"
#include "model/rope_spec.hpp"
#include "tensor/error.hpp"

namespace switchyard {

namespace {

// Tokens leave a cache in such numbers: attention cuts keys into blocks at their multiples, so its
// sums are those over all keys, to the bit.
constexpr std::int64_t cache_step = 256;

// Rows [distance, end) of a tensor become its rows [0, end - distance).
void move_up(const TensorView& rows, std::int64_t distance, std::int64_t end) {
  for (std::int64_t from = distance; from < end; from += distance) {
    const std::int64_t to = std::min(from + distance, end);
    kernels::copy(rows.slice_rows(from, to), rows.slice_rows(from - distance, to - distance));
  }
}

kernels::AttentionShape shape_of(const ModelConfig& model, const kernels::KeyPattern& pattern,
                                 std::int64_t query_length, std::int64_t key_length) {
  return {.num_sequences = 1,
          .query_length = query_length,
          .key_length = key_length,
          .num_heads = model.num_heads,
          .num_kv_heads = model.num_kv_heads,
          .head_dim = model.effective_head_dim(),
          .scale = attention_scale(model),
          .query_block = kernels::query_block(pattern, query_length)};
}

// For each half of the heads, where they see differently.
std::int64_t workspace_bytes(const Device& device, const ModelConfig& model,
                             std::span<const kernels::KeyPattern> patterns, DType compute,
                             std::int64_t num_tokens, std::int64_t max_length) {
  std::int64_t most = 0;
  for (const kernels::KeyPattern& pattern : patterns)
    for (const kernels::HeadShare& heads : kernels::head_shares(pattern, 2, 0, 2)) {
      kernels::AttentionShape shape = shape_of(model, heads.pattern, num_tokens, max_length);
      if (model.has_distance_keys()) shape.num_distances = model.sequence_length;
      most = std::max(most, kernels::attention_workspace_bytes(shape, compute, device.target()));
    }
  return most;
}

std::int64_t most_sets(std::span<const kernels::KeyPattern> patterns) {
  std::int64_t most = 1;
  for (const kernels::KeyPattern& pattern : patterns) most = std::max(most, pattern.num_sets());
  return most;
}

// The order's rows in the first of `rows`.
TensorView put_rows(const kernels::RowOrder& order, const Tensor& rows) {
  const TensorView used = rows->slice_rows(0, order.num_places());
  kernels::copy_from_host<std::int32_t>(order.rows(), used);
  return used;
}

}  // namespace

AttentionMixer::Cache::Cache(Device& device, const ModelConfig& model,
                             const kernels::KeyPattern& pattern, std::int64_t conv, DType compute,
                             std::int64_t max_length, std::int64_t max_new_tokens)
    : pattern_(pattern) {
  const std::int64_t key_cols = model.key_cols();
  if (conv > 1)
    last_rows_ = Tensor(device, Purpose::activation, compute,
                        {conv - 1, projected_cols(model, pattern.has_classes())});
  const std::int64_t kept = pattern.globals + pattern.window + cache_step + max_new_tokens;
  const bool keeps_all = pattern.window == 0 || pattern.reaches_far();
  const std::int64_t rows = keeps_all ? max_length : std::min(max_length, kept);
  keys_ = Tensor(device, Purpose::activation, compute, {rows, key_cols});
  values_ = Tensor(device, Purpose::activation, compute, {rows, key_cols});
}

std::vector<PositionRange> AttentionMixer::Cache::positions(std::int64_t num_rows) const {
  if (num_gone_ == 0) return {{0, num_rows}};
  const std::int64_t globals = pattern_.globals;
  return joined({{0, globals}, {globals + num_gone_, num_rows - globals}});
}

void AttentionMixer::Cache::make_room(std::int64_t num_cached, std::int64_t num_tokens) {
  if (num_cached + num_tokens - num_gone_ <= keys_->rows()) return;
  expect(pattern_.window > 0 && !pattern_.reaches_far(),
         "no more tokens than the cache has room for");
  const std::int64_t globals = pattern_.globals;
  const std::int64_t unseen = std::max<std::int64_t>(0, num_cached + 1 - pattern_.window - globals);
  const std::int64_t gone = unseen - unseen % cache_step;
  expect(num_cached + num_tokens - gone <= keys_->rows(), "at most max_new_tokens new tokens");
  for (const Tensor* rows : {&keys_, &values_})
    move_up((*rows)->slice_rows(globals, (*rows)->rows()), gone - num_gone_,
            num_cached - num_gone_ - globals);
  num_gone_ = gone;
}

AttentionMixer::ExtendScratch::ExtendScratch(Device& device, const ModelConfig& model,
                                             std::span<const kernels::KeyPattern> patterns,
                                             std::int64_t conv, DType compute,
                                             std::int64_t num_tokens, std::int64_t max_length,
                                             std::int64_t num_projected,
                                             const std::optional<QueryKeyNorm>& query_key_norm)
    : qkv(device, Purpose::workspace, compute, {num_tokens, projected_cols(model, false)}),
      out(device, Purpose::workspace, compute, {num_tokens, model.query_cols()}),
      lse(device, Purpose::workspace, DType::f32, {num_tokens, model.num_heads}),
      first_keys(device, Purpose::workspace, DType::i32, {most_sets(patterns) * num_tokens}),
      end_keys(device, Purpose::workspace, DType::i32, {most_sets(patterns) * num_tokens}),
      workspace(device, Purpose::workspace, DType::u8,
                {workspace_bytes(device, model, patterns, compute, num_tokens, max_length)}) {
  if (std::ranges::any_of(patterns, &kernels::KeyPattern::reaches_far)) {
    query_rows = Tensor(device, Purpose::workspace, DType::i32, {num_tokens});
    key_rows = Tensor(device, Purpose::workspace, DType::i32, {max_length});
  }
  if (query_key_norm) norm = query_key_norm->make_derived(num_tokens, compute, Purpose::workspace);
  if (conv > 0 || num_projected < qkv->cols())
    projected = Tensor(device, Purpose::workspace, compute, {num_tokens, num_projected});
  if (conv == 0) return;
  rows = Tensor(device, Purpose::workspace, compute, {conv - 1 + num_tokens, num_projected});
}

std::unique_ptr<MixerCache> AttentionMixer::make_cache(std::int64_t max_length,
                                                       std::int64_t max_new_tokens) const {
  auto cache = std::make_unique<Cache>(device_, model_, pattern_, conv_width_, compute_, max_length,
                                       max_new_tokens);
  if (compressed_) cache->compressed = compressed_->make_cache(max_length);
  return cache;
}

std::unique_ptr<MixerScratch> AttentionMixer::make_extend_scratch(std::int64_t num_tokens,
                                                                  std::int64_t max_length) const {
  std::vector<kernels::KeyPattern> patterns = attention_patterns(model_);
  auto scratch = std::make_unique<ExtendScratch>(
      device_, model_, patterns, conv_width_, compute_, num_tokens, max_length,
      projected_cols(model_, config_.shares_keys()), norm_);
  std::erase_if(patterns, [&](const kernels::KeyPattern& each) {
    return !each.is_hierarchical() || each.has_classes() != pattern_.has_classes();
  });
  if (!patterns.empty()) {
    const AttentionSizes sizes = attention_sizes(model_, config_, 1);
    if (pattern_.has_classes())
      scratch->classes.emplace(device_, sizes, compute_, patterns, num_tokens, max_length);
    else
      scratch->blocks.emplace(device_, sizes, compute_, patterns, num_tokens, max_length, false);
    scratch->sums = Tensor(device_, Purpose::workspace, DType::f32, scratch->out->shape);
  }
  if (pattern_.chosen_blocks > 0)
    scratch->chosen = Tensor(device_, Purpose::workspace, DType::i32,
                             {num_tokens, model_.num_kv_heads * pattern_.chosen_blocks});
  if (gates_) {
    scratch->branches = gates_->make_branches(num_tokens, Purpose::workspace);
    scratch->gates = gates_->make_gates(num_tokens, Purpose::workspace);
  }
  if (slots_) scratch->slots = slots_->make_scratch(num_tokens, false);
  if (distances_) scratch->distances = distances_->make_scratch(num_tokens, false);
  if (compressed_) scratch->compressed = compressed_->make_extend_scratch(num_tokens, max_length);
  return scratch;
}

void AttentionMixer::attend_by(const kernels::KeyPattern& all_heads, const AttentionInputs& inputs,
                               const PositionRange& positions,
                               const std::vector<PositionRange>& of_keys,
                               const ExtendScratch& scratch, const TensorView& out) const {
  for (const kernels::HeadShare& heads :
       kernels::head_shares(all_heads, model_.num_heads, 0, model_.num_heads)) {
    const kernels::KeyPattern& pattern = heads.pattern;
    const kernels::VisibleKeys visible{
        .queries = {&positions, 1}, .keys = of_keys, .pattern = pattern};
    const std::int64_t num_ranges = pattern.num_sets() * positions.count;
    kernels::KeyRanges ranges{.first = scratch.first_keys->slice_rows(0, num_ranges),
                              .end = scratch.end_keys->slice_rows(0, num_ranges),
                              .num_pairs = kernels::count_pairs(visible),
                              .num_sets = pattern.num_sets(),
                              .ascends = pattern.ascends()};
    kernels::fill_key_ranges(visible, {}, ranges.first, ranges.end);
    if (pattern.orders_queries())
      ranges.query_rows =
          put_rows(kernels::query_order(pattern, visible.queries), scratch.query_rows);
    if (pattern.orders_keys())
      ranges.key_rows = put_rows(kernels::key_order(pattern, of_keys), scratch.key_rows);
    kernels::AttentionShape shape = shape_of(model_, pattern, positions.count, inputs.k.rows());
    shape.slopes = slopes_;
    shape.bias = bias();
    shape.bias.num_parameters = 0;  // of gradients only
    if (distances_) {
      shape.num_distances = inputs.distance_keys.rows();
      shape.distance_queries = inputs.distance_queries;
      shape.distance_keys = inputs.distance_keys;
    }
    shape.query_positions = {&positions, 1};
    shape.key_positions = of_keys;
    const kernels::HeadSlice slice(shape, heads.begin, heads.end);
    kernels::attention_forward(slice.shape(), slice.queries(inputs.q), slice.keys(inputs.k),
                               slice.keys(inputs.v), ranges, slice.queries(out),
                               slice.row_values(scratch.lse), kernels::Merge::replace,
                               scratch.workspace);
  }
}

void AttentionMixer::attend_to_branches_of_cache(const AttentionInputs& inputs,
                                                 const PositionRange& positions,
                                                 const std::vector<PositionRange>& of_keys,
                                                 ExtendScratch& scratch) const {
  const auto branches = pattern_.branches();
  for (std::size_t c = 0; c < branches.size(); ++c) {
    const TensorView out = BranchGates::branch(scratch.branches, static_cast<std::int64_t>(c));
    if (!branches[c].is_hierarchical()) {
      attend_by(branches[c], inputs, positions, of_keys, scratch, out);
      continue;
    }
    scratch.blocks->forward({.pattern = branches[c], .queries = {&positions, 1}}, {}, inputs,
                            scratch.sums, scratch.lse, {});
    kernels::copy(scratch.sums, out);
  }
  gates_->combine(scratch.branches, scratch.gates, scratch.out);
}

void AttentionMixer::attend_to_cache(const TensorView& q, const PositionRange& positions,
                                     std::int64_t num_rows, const Cache& cache,
                                     ExtendScratch& scratch) const {
  AttentionInputs inputs{q, cache.keys()->slice_rows(0, num_rows),
                         cache.values()->slice_rows(0, num_rows)};
  if (distances_) distances_->put_queries(inputs, scratch.distances);
  if (!pattern_.is_hierarchical())
    return attend_by(pattern_, inputs, positions, cache.positions(num_rows), scratch, scratch.out);
  if (!scratch.chosen.empty()) inputs.chosen = scratch.chosen;
  if (summaries_) summaries_->put_weights(inputs);
  if (pattern_.has_classes()) {
    inputs.directions = directions_;
    scratch.classes->forward({.pattern = pattern_, .queries = {&positions, 1}}, inputs,
                             scratch.sums, scratch.lse, {});
    return kernels::copy(scratch.sums, scratch.out);
  }
  if (gates_)
    return attend_to_branches_of_cache(inputs, positions, cache.positions(num_rows), scratch);
  attend_by(pattern_.window_alone(), inputs, positions, cache.positions(num_rows), scratch,
            scratch.sums);
  scratch.blocks->forward({.pattern = pattern_, .queries = {&positions, 1}}, {}, inputs,
                          scratch.sums, scratch.lse, {});
  kernels::copy(scratch.sums, scratch.out);
}

void AttentionMixer::extend(const TensorView& x, const TensorView& y, std::int64_t num_cached,
                            MixerCache& any_cache, const LayerContext& context) const {
  auto& cache = dynamic_cast<Cache&>(any_cache);
  auto& scratch = dynamic_cast<ExtendScratch&>(context.scratch);
  const std::int64_t num_tokens = x.rows();
  cache.make_room(num_cached, num_tokens);
  const std::int64_t offset = num_cached - cache.num_gone();  // rows of the cache in use
  const std::int64_t length = offset + num_tokens;
  const Heads heads = heads_of(scratch.qkv);
  project(x, scratch.projected.empty() ? scratch.qkv : scratch.projected);
  if (conv_)
    conv_->extend(scratch.projected, projected_part(scratch.qkv), cache.last_rows(), scratch.rows,
                  num_cached);
  else if (config_.shares_keys())
    kernels::copy(scratch.projected, projected_part(scratch.qkv));
  norm_and_turn(scratch.qkv, scratch.norm, TensorView{}, context);
  kernels::copy(heads.k, cache.keys()->slice_rows(offset, length));
  kernels::copy(heads.v, cache.values()->slice_rows(offset, length));
  if (gates_) gates_->forward(x, scratch.gates);
  attend_to_cache(heads.q, {num_cached, num_tokens}, length, cache, scratch);
  if (sinks_ != nullptr)
    kernels::attention_sink_forward(sinks(), model_.effective_head_dim(), scratch.out, scratch.lse);
  if (slots_) slots_->forward(heads.q, scratch.out, scratch.lse, scratch.slots, context);
  if (compressed_)
    compressed_->extend(x, packed_qkv_, {heads.q, heads.k, heads.v, scratch.out, scratch.lse},
                        num_cached, *cache.compressed, *scratch.compressed);
  project_output(scratch.out, y);
}

}  // namespace switchyard
