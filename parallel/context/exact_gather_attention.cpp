#include "parallel/context/exact_gather_attention.hpp"

#include <algorithm>
#include <array>

#include "kernels/attention/attention_sink.hpp"

namespace switchyard {

namespace {

using Positions = std::vector<PositionRange>;

// By rank: the positions that its queries see.
std::vector<Positions> seen_by_rank(std::span<const Positions> held,
                                    const kernels::KeyPattern& pattern) {
  std::vector<Positions> seen;
  for (const Positions& queries : held) seen.push_back(kernels::seen_positions(queries, pattern));
  return seen;
}

// By rank: the positions whose queries see its keys.
std::vector<Positions> seeing_by_rank(std::span<const Positions> held,
                                      const kernels::KeyPattern& pattern, std::int64_t length) {
  std::vector<Positions> seeing;
  for (const Positions& keys : held)
    seeing.push_back(kernels::seeing_positions(keys, pattern, length));
  return seeing;
}

AttentionPart share_of(std::span<const PositionRange> queries, std::span<const PositionRange> keys,
                       const kernels::KeyPattern& pattern) {
  return {.queries = queries,
          .keys = keys,
          .pattern = pattern,
          .of_whole_sequences = true,
          .writes_zeros = true};
}

}  // namespace

ExactGatherAttention::ExactGatherAttention(Group& group, PartAttention& kernel,
                                           std::span<const Positions> held, std::int64_t length,
                                           std::span<const kernels::KeyPattern> patterns,
                                           ExchangeProgress& progress)
    : kernel_(kernel), own_(held[static_cast<std::size_t>(group.rank())]) {
  const AttentionSizes& sizes = kernel.sizes();
  const std::int64_t keys_bytes = 2 * sizes.key_cols() * size_of(kernel.compute());
  const std::int64_t queries_bytes = 2 * std::max(sizes.query_cols() * size_of(kernel.compute()),
                                                  sizes.num_heads * size_of(DType::f32));
  std::int64_t most_keys = 0, most_queries = 0, outgoing_bytes = 0, incoming_bytes = 0;
  for (const kernels::KeyPattern& pattern : patterns) {
    const auto exchange = [&](const std::vector<Positions>& read) {
      return HaloExchange(group, held, read, sizes.num_sequences, progress);
    };
    const Exchanges& made =
        exchanges_
            .try_emplace(pattern, Exchanges{exchange(seen_by_rank(held, pattern)),
                                            exchange(seeing_by_rank(held, pattern, length))})
            .first->second;
    most_keys = std::max(most_keys, made.keys.num_gathered());
    most_queries = std::max(most_queries, made.queries.num_gathered());
    outgoing_bytes = std::max({outgoing_bytes, made.keys.num_given() * keys_bytes,
                               made.queries.num_given() * queries_bytes});
    incoming_bytes = std::max({incoming_bytes, made.keys.num_taken() * keys_bytes,
                               made.queries.num_taken() * queries_bytes});
  }
  Device& device = kernel.device();
  keys_ =
      Tensor(device, Purpose::communication, kernel.compute(), {most_keys, 2 * sizes.key_cols()});
  queries_ = Tensor(device, Purpose::communication, kernel.compute(),
                    {most_queries, 2 * sizes.query_cols()});
  statistics_ =
      Tensor(device, Purpose::communication, DType::f32, {most_queries, 2 * sizes.num_heads});
  messages_.outgoing = Tensor(device, Purpose::communication, DType::u8, {outgoing_bytes});
  messages_.incoming = Tensor(device, Purpose::communication, DType::u8, {incoming_bytes});
}

AttentionInputs ExactGatherAttention::with_keys(const Exchanges& exchanges,
                                                const AttentionInputs& inputs) {
  const TensorView keys = keys_->slice_rows(0, exchanges.keys.num_gathered());
  const std::array<TensorView, 2> parts = {inputs.k, inputs.v};
  exchanges.keys.gather(parts, keys, messages_);
  const std::int64_t cols = kernel_.sizes().key_cols();
  return {inputs.q, keys.slice_cols(0, cols), keys.slice_cols(cols, 2 * cols), inputs.bias};
}

void ExactGatherAttention::forward(const kernels::KeyPattern& pattern, const TensorView& sinks,
                                   const AttentionInputs& inputs, const TensorView& out,
                                   const TensorView& lse, const kernels::Poll& poll) {
  const Exchanges& exchanges = exchanges_.at(pattern);
  kernel_.forward(share_of(own_, exchanges.keys.positions(), pattern), with_keys(exchanges, inputs),
                  out, lse, kernels::Merge::replace, poll);
  if (!sinks.empty()) kernels::attention_sink_forward(sinks, kernel_.sizes().head_dim, out, lse);
}

void ExactGatherAttention::backward(const kernels::KeyPattern& pattern,
                                    const AttentionInputs& inputs, const AttentionResults& results,
                                    const AttentionRowGradients& gradients,
                                    const kernels::Poll& poll) {
  const Exchanges& exchanges = exchanges_.at(pattern);
  differentiate_queries(exchanges, pattern, inputs, results, gradients, poll);
  differentiate_keys(exchanges, pattern, inputs, results, gradients, poll);
}

void ExactGatherAttention::differentiate_queries(const Exchanges& exchanges,
                                                 const kernels::KeyPattern& pattern,
                                                 const AttentionInputs& inputs,
                                                 const AttentionResults& results,
                                                 const AttentionRowGradients& gradients,
                                                 const kernels::Poll& poll) {
  kernel_.backward(share_of(own_, exchanges.keys.positions(), pattern),
                   with_keys(exchanges, inputs), results,
                   {.dq = gradients.q, .dk = {}, .dv = {}, .dbias = gradients.bias}, poll);
}

void ExactGatherAttention::differentiate_keys(const Exchanges& exchanges,
                                              const kernels::KeyPattern& pattern,
                                              const AttentionInputs& inputs,
                                              const AttentionResults& results,
                                              const AttentionRowGradients& gradients,
                                              const kernels::Poll& poll) {
  const HaloExchange& exchange = exchanges.queries;
  const TensorView queries = queries_->slice_rows(0, exchange.num_gathered());
  const TensorView statistics = statistics_->slice_rows(0, exchange.num_gathered());
  const std::array<TensorView, 2> of_queries = {inputs.q, results.dout};
  exchange.gather(of_queries, queries, messages_);
  const std::array<TensorView, 2> of_rows = {results.lse, results.delta};
  exchange.gather(of_rows, statistics, messages_);
  const std::int64_t cols = kernel_.sizes().query_cols();
  const std::int64_t heads = kernel_.sizes().num_heads;
  kernel_.backward(share_of(exchange.positions(), own_, pattern),
                   {queries.slice_cols(0, cols), inputs.k, inputs.v, inputs.bias},
                   {.lse = statistics.slice_cols(0, heads),
                    .delta = statistics.slice_cols(heads, 2 * heads),
                    .dout = queries.slice_cols(cols, 2 * cols)},
                   {.dq = {}, .dk = gradients.k, .dv = gradients.v}, poll);
}

}  // namespace switchyard
