#include "parallel/context/context_attention.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "kernels/attention/attention_sink.hpp"
#include "kernels/rows/elementwise.hpp"
#include "tensor/error.hpp"

namespace switchyard {

namespace {

std::vector<std::vector<PositionRange>> held_by_context(const SequenceSplit& split) {
  std::vector<std::vector<PositionRange>> held;
  for (int rank = 0; rank < split.num_ranks(); ++rank) held.push_back(split.segments(rank));
  return held;
}

std::vector<std::vector<PositionRange>> held_by_ring(const SequenceSplit& split) {
  std::vector<std::vector<PositionRange>> held;
  for (int rank = 0; rank < split.ring(); ++rank) held.push_back(split.ring_segments(rank));
  return held;
}

// Positions of the ranks that exchange heads with each other.
std::vector<std::int64_t> local_of_ulysses(const SequenceSplit& split, int ring_rank) {
  std::vector<std::int64_t> num_local;
  for (int u = 0; u < split.ulysses(); ++u)
    num_local.push_back(split.num_local(ring_rank * split.ulysses() + u));
  return num_local;
}

AttentionSizes share_of(AttentionSizes sizes, int num_ranks, int rank) {
  sizes.all_heads = sizes.num_heads;
  sizes.num_heads = HeadExchange::heads_each(sizes.num_heads, num_ranks);
  sizes.num_kv_heads = HeadExchange::heads_each(sizes.num_kv_heads, num_ranks);
  sizes.first_head = rank * sizes.num_heads;
  if (!sizes.slopes.empty()) {
    const auto first = sizes.slopes.begin() + sizes.first_head;
    sizes.slopes = {first, first + sizes.num_heads};
  }
  return sizes;
}

bool is_legal(std::int64_t num_heads, std::int64_t num_kv_heads, std::int64_t ulysses, bool exact) {
  if (num_heads % ulysses != 0) return false;
  return num_kv_heads % ulysses == 0 || (!exact && ulysses % num_kv_heads == 0);
}

// Rows of fewer columns, in the memory of the tensor.
TensorView with_cols(const Tensor& tensor, std::int64_t cols) {
  return tensor->reinterpret(tensor->dtype, {tensor->rows(), cols});
}

// The parts of rows [q | k | v ...].
AttentionInputs inputs_in(const TensorView& rows, const AttentionSizes& sizes) {
  const std::int64_t k = sizes.query_cols();
  const std::int64_t v = k + sizes.key_cols();
  return {rows.slice_cols(0, k), rows.slice_cols(k, v), rows.slice_cols(v, v + sizes.key_cols())};
}

// Whether a window's halo goes straight between the context ranks: where there are no Ulysses
// ranks, and where the ranks beside hold all of it. What hierarchical patterns read does so, too:
// blocks are chosen by all heads' rows.
bool halo_stays_with_rows(const SequenceSplit& split, const kernels::KeyPattern& pattern) {
  if (split.ulysses() == 1 || pattern.is_hierarchical()) return true;
  return pattern.window > 0 && !pattern.reaches_far() && pattern.window - 1 <= split.max_local() &&
         (pattern.globals == 0 || !pattern.begins_anywhere);
}

AttentionMethod method_of(const ContextConfig& config, const AttentionSizes& sizes) {
  if (config.exact) return AttentionMethod::exact;
  return config.method == ContextMethod::all_gather || sizes.num_distances > 0
             ? AttentionMethod::all_gather
             : AttentionMethod::ring;
}

}  // namespace

std::vector<ConfigMistake> head_mistakes(std::int64_t num_heads, std::int64_t num_kv_heads,
                                         std::int64_t ulysses, bool exact) {
  if (is_legal(num_heads, num_kv_heads, ulysses, exact)) return {};
  std::vector<std::int64_t> legal;
  for (std::int64_t u = 1; u <= num_heads; ++u)
    if (is_legal(num_heads, num_kv_heads, u, exact)) legal.push_back(u);
  return {{{"parallel.context.ulysses", "parallel.context", "parallel.context.ring",
            "model.num_kv_heads", "model.num_heads"},
           fmt::format("{} ranks cannot share {} heads and {} kv heads: it must divide "
                       "model.num_heads, and divide model.num_kv_heads{}; ulysses may be {}",
                       ulysses, num_heads, num_kv_heads,
                       exact ? " (numerics.exact: its gradients are not summed over ranks)"
                             : " or be a multiple of it",
                       fmt::join(legal, ", "))}};
}

ContextAttention::Heads::Heads(Device& device, Group& ulysses, const AttentionSizes& all,
                               DType compute, const SequenceSplit& split, int ring_rank,
                               ExchangeProgress& progress)
    : sizes(share_of(all, ulysses.size(), ulysses.rank())),
      gradient_type(all.num_kv_heads < ulysses.size() ? DType::f32 : compute),
      exchange(ulysses, device, all.num_sequences, local_of_ulysses(split, ring_rank),
               std::max({2 * (sizes.query_cols() + sizes.key_cols()) * size_of(compute),
                         2 * sizes.key_cols() * size_of(gradient_type),
                         2 * sizes.num_heads * size_of(DType::f32),
                         sizes.bias_cols() * size_of(DType::f32)}),
               progress) {
  const std::int64_t num_rows = all.num_sequences * exchange.num_gathered();
  rows = Tensor(device, Purpose::communication, compute,
                {num_rows, 2 * (sizes.query_cols() + sizes.key_cols())});
  outputs = Tensor(device, Purpose::communication, compute, {num_rows, sizes.query_cols()});
  keys = Tensor(device, Purpose::communication, gradient_type, {num_rows, 2 * sizes.key_cols()});
  statistics = Tensor(device, Purpose::communication, DType::f32, {num_rows, 2 * sizes.num_heads});
  if (sizes.bias_cols() > 0)
    dbias = Tensor(device, Purpose::communication, DType::f32, {num_rows, sizes.bias_cols()});
}

ContextAttention::ContextAttention(Device& device, const Mesh& mesh, const AttentionSizes& sizes,
                                   DType compute, const SequenceSplit& split,
                                   std::span<const kernels::KeyPattern> patterns,
                                   std::optional<Progress> progress)
    : sizes_(sizes),
      split_(split),
      method_(method_of(mesh.config().context_split, sizes)),
      documents_(mesh.config().context_split.documents),
      ulysses_rank_(mesh.index(Axis::context_ulysses)),
      progress_(progress ? *progress : mesh.config().context_split.progress,
                device.compute_stream()) {
  expect(split.ring() == mesh.degree(Axis::context_ring) &&
             split.ulysses() == mesh.degree(Axis::context_ulysses),
         "a split over the mesh's context axis");
  expect(sizes.num_distances == 0 || (split.ulysses() == 1 && method_ != AttentionMethod::exact),
         "keys of distances without Ulysses ranks and exact sums");
  require_none(head_mistakes(sizes.num_heads, sizes.num_kv_heads, split.ulysses(),
                             method_ == AttentionMethod::exact));
  std::vector<kernels::KeyPattern> with_rows;
  std::vector<kernels::KeyPattern> with_heads;
  for (const kernels::KeyPattern& asked : patterns) {
    const kernels::KeyPattern pattern = of_documents(asked);
    has_globals_ = has_globals_ || pattern.globals > 0;
    (stays_with_rows(pattern) ? with_rows : with_heads).push_back(pattern);
  }
  if (!with_rows.empty())
    by_rows_.emplace(device, mesh.group(Axis::context), sizes, compute, held_by_context(split),
                     with_rows, method_, progress_);
  if (!with_heads.empty()) {
    const int ring_rank = mesh.index(Axis::context_ring);
    heads_.emplace(device, mesh.group(Axis::context_ulysses), sizes, compute, split, ring_rank,
                   progress_);
    by_heads_.emplace(device, mesh.group(Axis::context_ring), heads_->sizes, compute,
                      held_by_ring(split), with_heads, method_, progress_);
  }
  delta_ =
      Tensor(device, Purpose::workspace, DType::f32,
             {sizes.num_sequences * split.num_local(mesh.index(Axis::context)), sizes.num_heads});
}

void ContextAttention::begin(kernels::DocumentStarts document_starts) {
  expect(document_starts.empty() || documents_ || !has_globals_ || split_.num_ranks() == 1,
         "documents only where the mesh's configuration says that there are any");
  if (by_rows_) by_rows_->set_documents(document_starts);
  if (by_heads_) by_heads_->set_documents(document_starts);
}

kernels::KeyPattern ContextAttention::of_documents(kernels::KeyPattern pattern) const {
  pattern.begins_anywhere = documents_ && pattern.globals > 0;
  return pattern;
}

void ContextAttention::forward(const kernels::KeyPattern& asked, const TensorView& sinks,
                               const AttentionInputs& inputs, const TensorView& out,
                               const TensorView& lse, const kernels::Poll& poll) {
  const kernels::KeyPattern pattern = of_documents(asked);
  if (stays_with_rows(pattern))
    by_rows_->forward(pattern, sinks, inputs, out, lse, poll);
  else
    forward_by_heads(pattern, sinks, inputs, out, lse, poll);
}

void ContextAttention::backward(const kernels::KeyPattern& asked, const TensorView& sinks,
                                const kernels::GradientSum& dsinks, const AttentionInputs& inputs,
                                const TensorView& out, const TensorView& lse,
                                const TensorView& dout, const AttentionRowGradients& gradients,
                                const kernels::Poll& poll) {
  kernels::attention_delta(out, dout, sizes_.head_dim, delta_);
  if (!sinks.empty()) kernels::attention_sink_backward(sinks, lse, delta_, dsinks);
  const AttentionResults results{.lse = lse, .delta = delta_, .dout = dout};
  const kernels::KeyPattern pattern = of_documents(asked);
  if (stays_with_rows(pattern))
    by_rows_->backward(pattern, inputs, results, gradients, poll);
  else
    backward_by_heads(pattern, inputs, results, gradients, poll);
}

bool ContextAttention::stays_with_rows(const kernels::KeyPattern& pattern) const {
  if (method_ == AttentionMethod::exact) return split_.ulysses() == 1;
  return halo_stays_with_rows(split_, pattern);
}

std::vector<HeadColumns> ContextAttention::columns_of(const TensorView& q, const TensorView& k,
                                                      const TensorView& v) const {
  return {{q, sizes_.num_heads, sizes_.head_dim},
          {k, sizes_.num_kv_heads, sizes_.head_dim},
          {v, sizes_.num_kv_heads, sizes_.head_dim}};
}

TensorView ContextAttention::share_of_heads(const TensorView& by_head) const {
  const std::int64_t num_heads = heads_->sizes.num_heads;
  if (by_head.empty()) return {};
  return by_head.slice_rows(ulysses_rank_ * num_heads, (ulysses_rank_ + 1) * num_heads);
}

void ContextAttention::forward_by_heads(const kernels::KeyPattern& pattern, const TensorView& sinks,
                                        const AttentionInputs& inputs, const TensorView& out,
                                        const TensorView& lse, const kernels::Poll& poll) {
  Heads& heads = *heads_;
  const AttentionSizes& share = heads.sizes;
  const TensorView rows = with_cols(heads.rows, share.query_cols() + 2 * share.key_cols());
  heads.exchange.to_heads(columns_of(inputs.q, inputs.k, inputs.v), rows);
  const TensorView share_of_lse = with_cols(heads.statistics, share.num_heads);
  AttentionInputs share_of_inputs = inputs_in(rows, share);
  share_of_inputs.bias = share_of_heads(inputs.bias);
  by_heads_->forward(pattern, share_of_heads(sinks), share_of_inputs, heads.outputs, share_of_lse,
                     poll);
  heads.exchange.to_rows(heads.outputs,
                         std::vector<HeadColumns>{{out, sizes_.num_heads, sizes_.head_dim}});
  heads.exchange.to_rows(share_of_lse, std::vector<HeadColumns>{{lse, sizes_.num_heads, 1}});
}

void ContextAttention::backward_by_heads(const kernels::KeyPattern& pattern,
                                         const AttentionInputs& inputs,
                                         const AttentionResults& results,
                                         const AttentionRowGradients& gradients,
                                         const kernels::Poll& poll) {
  Heads& heads = *heads_;
  const AttentionSizes& share = heads.sizes;
  std::vector<HeadColumns> columns = columns_of(inputs.q, inputs.k, inputs.v);
  columns.push_back({results.dout, sizes_.num_heads, sizes_.head_dim});
  heads.exchange.to_heads(columns, heads.rows);
  heads.exchange.to_heads(std::vector<HeadColumns>{{results.lse, sizes_.num_heads, 1},
                                                   {results.delta, sizes_.num_heads, 1}},
                          heads.statistics);
  const std::int64_t dout = share.query_cols() + 2 * share.key_cols();
  const AttentionRowGradients share_of_gradients{
      heads.outputs, heads.keys->slice_cols(0, share.key_cols()),
      heads.keys->slice_cols(share.key_cols(), 2 * share.key_cols()),
      heads.dbias.empty() ? TensorView{} : heads.dbias.view()};
  AttentionInputs share_of_inputs = inputs_in(heads.rows, share);
  share_of_inputs.bias = share_of_heads(inputs.bias);
  by_heads_->backward(pattern, share_of_inputs,
                      {.lse = heads.statistics->slice_cols(0, share.num_heads),
                       .delta = heads.statistics->slice_cols(share.num_heads, 2 * share.num_heads),
                       .dout = heads.rows->slice_cols(dout, dout + share.query_cols())},
                      share_of_gradients, poll);
  const std::vector<HeadColumns> all = columns_of(gradients.q, gradients.k, gradients.v);
  heads.exchange.to_rows(heads.outputs, std::span(all).first(1));
  heads.exchange.to_rows(heads.keys, std::span(all).subspan(1));
  if (!heads.dbias.empty())
    heads.exchange.to_rows(heads.dbias, std::vector<HeadColumns>{{gradients.bias, sizes_.num_heads,
                                                                  sizes_.num_bias_parameters}});
}

}  // namespace switchyard
