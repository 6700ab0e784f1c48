#include "parallel/context/hierarchical_attention.hpp"

#include <algorithm>
#include <array>

#include "kernels/attention/attention_sink.hpp"
#include "kernels/rows/elementwise.hpp"

namespace switchyard {

namespace {

using Positions = std::vector<PositionRange>;

// By rank: everything up to its last position.
std::vector<Positions> read_by_rank(std::span<const Positions> held) {
  std::vector<Positions> read;
  for (const Positions& own : held)
    read.push_back(own.empty() ? Positions() : joined({{0, own.back().end()}}));
  return read;
}

}  // namespace

HierarchicalAttention::HierarchicalAttention(Group& group, PartAttention& kernel,
                                             std::span<const Positions> held,
                                             std::span<const kernels::KeyPattern> patterns,
                                             ExchangeProgress& progress)
    : kernel_(kernel),
      own_(held[static_cast<std::size_t>(group.rank())]),
      exchange_(group, held, read_by_rank(held), kernel.sizes().num_sequences, progress) {
  std::vector<kernels::KeyPattern> of_blocks, of_classes;
  for (const kernels::KeyPattern& pattern : patterns)
    (pattern.has_classes() ? of_classes : of_blocks).push_back(pattern);
  const std::int64_t num_queries = num_positions(own_);
  const std::int64_t num_keys = num_positions(exchange_.positions());
  if (!of_blocks.empty())
    blocks_.emplace(kernel.device(), kernel.sizes(), kernel.compute(), of_blocks, num_queries,
                    num_keys, true);
  if (!of_classes.empty())
    classes_.emplace(kernel.device(), kernel.sizes(), kernel.compute(), of_classes, num_queries,
                     num_keys);
  Device& device = kernel.device();
  const AttentionSizes& sizes = kernel.sizes();
  const std::int64_t cols = 2 * sizes.key_cols();
  const std::int64_t bytes = cols * size_of(kernel.compute());
  const std::int64_t gradient_bytes = cols * size_of(DType::f32);
  const auto make = [&](DType dtype, const Shape& dims) {
    return Tensor(device, Purpose::communication, dtype, dims);
  };
  keys_ = make(kernel.compute(), {exchange_.num_gathered(), cols});
  key_gradients_ = make(DType::f32, {exchange_.num_gathered(), cols});
  sums_ = make(DType::f32, {sizes.num_sequences * num_positions(own_), sizes.query_cols()});
  messages_.outgoing = make(
      DType::u8, {std::max(exchange_.num_given() * bytes, exchange_.num_taken() * gradient_bytes)});
  messages_.incoming = make(
      DType::u8, {std::max(exchange_.num_taken() * bytes, exchange_.num_given() * gradient_bytes)});
}

AttentionPart HierarchicalAttention::window_of(const kernels::KeyPattern& pattern) const {
  return {.queries = own_,
          .keys = exchange_.positions(),
          .key_length = num_positions(exchange_.positions()),
          .pattern = pattern.window_alone(),
          .writes_zeros = true};
}

kernels::BlockQueries HierarchicalAttention::asking(const kernels::KeyPattern& pattern) const {
  return {.pattern = pattern,
          .queries = own_,
          .num_sequences = kernel_.sizes().num_sequences,
          .document_begins = kernel_.document_begins()};
}

AttentionInputs HierarchicalAttention::gather(const AttentionInputs& inputs) {
  const std::array<TensorView, 2> parts = {inputs.k, inputs.v};
  exchange_.gather(parts, keys_, messages_);
  const std::int64_t cols = kernel_.sizes().key_cols();
  AttentionInputs gathered = inputs;
  gathered.k = keys_->slice_cols(0, cols);
  gathered.v = keys_->slice_cols(cols, 2 * cols);
  return gathered;
}

void HierarchicalAttention::forward(const kernels::KeyPattern& pattern, const TensorView& sinks,
                                    const AttentionInputs& inputs, const TensorView& out,
                                    const TensorView& lse, const kernels::Poll& poll) {
  const AttentionInputs gathered = gather(inputs);
  if (!pattern.without_window && !pattern.has_classes())
    kernel_.forward(window_of(pattern), gathered, sums_, lse, kernels::Merge::replace, poll);
  if (pattern.has_classes())
    classes_->forward(asking(pattern), gathered, sums_, lse, poll);
  else
    blocks_->forward(asking(pattern), kernel_.document_starts(), gathered, sums_, lse, poll);
  kernels::copy(sums_, out);
  if (!sinks.empty()) kernels::attention_sink_forward(sinks, kernel_.sizes().head_dim, out, lse);
}

void HierarchicalAttention::backward(const kernels::KeyPattern& pattern,
                                     const AttentionInputs& inputs, const AttentionResults& results,
                                     const AttentionRowGradients& gradients,
                                     const kernels::Poll& poll) {
  const AttentionInputs gathered = gather(inputs);
  const std::int64_t cols = kernel_.sizes().key_cols();
  AttentionRowGradients sums = gradients;
  sums.q = sums_;
  sums.k = key_gradients_->slice_cols(0, cols);
  sums.v = key_gradients_->slice_cols(cols, 2 * cols);
  if (pattern.without_window || pattern.has_classes())
    for (const TensorView* each : {&sums.q, &sums.k, &sums.v}) kernels::fill_zero(*each);
  else
    kernel_.backward(window_of(pattern), gathered, results,
                     {.dq = sums.q, .dk = sums.k, .dv = sums.v}, poll);
  if (pattern.has_classes())
    classes_->backward(asking(pattern), gathered, results, sums, poll);
  else
    blocks_->backward(asking(pattern), kernel_.document_starts(), gathered, results, sums, poll);
  kernels::copy(sums_, gradients.q);
  exchange_.bring_home(key_gradients_, messages_);
  exchange_.take_own(sums.k, gradients.k);
  exchange_.take_own(sums.v, gradients.v);
}

}  // namespace switchyard
