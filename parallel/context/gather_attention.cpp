#include "parallel/context/gather_attention.hpp"

#include <algorithm>
#include <array>

#include "kernels/attention/attention_sink.hpp"

namespace switchyard {

namespace {

// By rank: the positions that its queries see.
std::vector<std::vector<PositionRange>> seen_by_rank(
    std::span<const std::vector<PositionRange>> held, const kernels::KeyPattern& pattern) {
  std::vector<std::vector<PositionRange>> seen;
  for (const std::vector<PositionRange>& queries : held)
    seen.push_back(kernels::seen_positions(queries, pattern));
  return seen;
}

}  // namespace

GatherAttention::GatherAttention(Group& group, PartAttention& kernel,
                                 std::span<const std::vector<PositionRange>> held,
                                 std::span<const kernels::KeyPattern> patterns,
                                 ExchangeProgress& progress)
    : kernel_(kernel), own_(held[static_cast<std::size_t>(group.rank())]) {
  std::int64_t most_given = 0;
  std::int64_t most_taken = 0;
  std::int64_t most_keys = 0;
  for (const kernels::KeyPattern& pattern : patterns) {
    const HaloExchange& exchange =
        exchanges_
            .try_emplace(pattern, group, held, seen_by_rank(held, pattern),
                         kernel.sizes().num_sequences, progress)
            .first->second;
    most_given = std::max(most_given, exchange.num_given());
    most_taken = std::max(most_taken, exchange.num_taken());
    most_keys = std::max(most_keys, exchange.num_gathered());
  }
  Device& device = kernel.device();
  const std::int64_t cols = 2 * kernel.sizes().key_cols();
  const std::int64_t bytes = cols * size_of(kernel.compute());
  const std::int64_t gradient_bytes = cols * size_of(DType::f32);
  keys_ = Tensor(device, Purpose::communication, kernel.compute(), {most_keys, cols});
  key_gradients_ = Tensor(device, Purpose::communication, DType::f32, {most_keys, cols});
  messages_.outgoing = Tensor(device, Purpose::communication, DType::u8,
                              {std::max(most_given * bytes, most_taken * gradient_bytes)});
  messages_.incoming = Tensor(device, Purpose::communication, DType::u8,
                              {std::max(most_taken * bytes, most_given * gradient_bytes)});
}

std::int64_t GatherAttention::max_keys(std::span<const std::vector<PositionRange>> held, int rank,
                                       std::span<const kernels::KeyPattern> patterns) {
  std::int64_t most = 0;
  for (const kernels::KeyPattern& pattern : patterns)
    most = std::max(most, num_positions(kernels::seen_positions(
                              held[static_cast<std::size_t>(rank)], pattern)));
  return most;
}

AttentionPart GatherAttention::part_of(const HaloExchange& exchange,
                                       const kernels::KeyPattern& pattern) const {
  return {.queries = own_,
          .keys = exchange.positions(),
          .key_length = num_positions(exchange.positions()),
          .pattern = pattern,
          .writes_zeros = true};
}

AttentionInputs GatherAttention::gather(const HaloExchange& exchange,
                                        const AttentionInputs& inputs) {
  const TensorView keys = keys_->slice_rows(0, exchange.num_gathered());
  const std::array<TensorView, 2> parts = {inputs.k, inputs.v};
  exchange.gather(parts, keys, messages_);
  const std::int64_t cols = kernel_.sizes().key_cols();
  AttentionInputs gathered = inputs;
  gathered.k = keys.slice_cols(0, cols);
  gathered.v = keys.slice_cols(cols, 2 * cols);
  return gathered;
}

void GatherAttention::forward(const kernels::KeyPattern& pattern, const TensorView& sinks,
                              const AttentionInputs& inputs, const TensorView& out,
                              const TensorView& lse, const kernels::Poll& poll) {
  const HaloExchange& exchange = exchanges_.at(pattern);
  kernel_.forward(part_of(exchange, pattern), gather(exchange, inputs), out, lse,
                  kernels::Merge::replace, poll);
  if (!sinks.empty()) kernels::attention_sink_forward(sinks, kernel_.sizes().head_dim, out, lse);
}

void GatherAttention::backward(const kernels::KeyPattern& pattern, const AttentionInputs& inputs,
                               const AttentionResults& results,
                               const AttentionRowGradients& gradients, const kernels::Poll& poll) {
  const HaloExchange& exchange = exchanges_.at(pattern);
  const std::int64_t cols = kernel_.sizes().key_cols();
  const AttentionInputs all = gather(exchange, inputs);
  const TensorView gathered = key_gradients_->slice_rows(0, exchange.num_gathered());
  const TensorView dk = gathered.slice_cols(0, cols);
  const TensorView dv = gathered.slice_cols(cols, 2 * cols);
  kernel_.backward(part_of(exchange, pattern), all, results,
                   {.dq = gradients.q,
                    .dk = dk,
                    .dv = dv,
                    .dp = gradients.distance_queries,
                    .dr = gradients.distance_keys,
                    .dbias = gradients.bias},
                   poll);
  exchange.bring_home(gathered, messages_);
  exchange.take_own(dk, gradients.k);
  exchange.take_own(dv, gradients.v);
}

}  // namespace switchyard
