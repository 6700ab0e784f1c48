#include "parallel/context/gather_attention.hpp"

#include <algorithm>
#include <utility>

#include "kernels/attention_sink.hpp"
#include "kernels/elementwise.hpp"
#include "tensor/error.hpp"

namespace switchyard {

namespace {

// The positions that both hold, ascending.
std::vector<PositionRange> common(std::span<const PositionRange> a,
                                  std::span<const PositionRange> b) {
  std::vector<PositionRange> segments;
  for (const PositionRange& one : a)
    for (const PositionRange& other : b) {
      const std::int64_t begin = std::max(one.begin, other.begin);
      const std::int64_t end = std::min(one.end(), other.end());
      if (begin < end) segments.push_back({begin, end - begin});
    }
  return segments;
}

// Positions as rows of those who store `rows`.
template <class Run>
std::vector<Run> runs_in(std::span<const PositionRange> positions,
                         std::span<const PositionRange> rows) {
  std::vector<Run> runs;
  for (const PositionRange& each : positions)
    runs.push_back({count_before(rows, each.begin), each.count});
  return runs;
}

}  // namespace

GatherAttention::GatherAttention(Group& group, AttentionPartKernel& kernel,
                                 std::vector<std::vector<PositionRange>> held,
                                 std::span<const std::int64_t> windows, ExchangeProgress& progress)
    : group_(group), kernel_(kernel), progress_(progress), held_(std::move(held)) {
  expect(std::ssize(held_) == group.size(), "the segments of each rank of the group");
  num_local_ = num_positions(held_[static_cast<std::size_t>(group.rank())]);
  std::int64_t most_given = 0;
  std::int64_t most_taken = 0;
  std::int64_t most_keys = 0;
  for (const std::int64_t window : windows) {
    const Exchange& exchange = exchanges_.emplace(window, exchange_for(window)).first->second;
    most_given = std::max(most_given, exchange.num_given);
    most_taken = std::max(most_taken, exchange.num_taken);
    most_keys = std::max(most_keys, exchange.key_length());
  }
  Device& device = kernel.device();
  const std::int64_t cols = 2 * kernel.sizes().key_cols();
  const std::int64_t bytes = cols * size_of(kernel.compute());
  const std::int64_t gradient_bytes = cols * size_of(DType::f32);
  const std::int64_t key_rows = kernel.sizes().num_sequences * most_keys;
  keys_ = Tensor(device, Purpose::communication, kernel.compute(), {key_rows, cols});
  key_gradients_ = Tensor(device, Purpose::communication, DType::f32, {key_rows, cols});
  outgoing_ = Tensor(device, Purpose::communication, DType::u8,
                     {std::max(most_given * bytes, most_taken * gradient_bytes)});
  incoming_ = Tensor(device, Purpose::communication, DType::u8,
                     {std::max(most_taken * bytes, most_given * gradient_bytes)});
}

std::int64_t GatherAttention::max_keys(std::span<const std::vector<PositionRange>> held, int rank,
                                       std::span<const std::int64_t> windows) {
  std::int64_t most = 0;
  for (const std::int64_t window : windows)
    most = std::max(
        most, num_positions(kernels::seen_positions(held[static_cast<std::size_t>(rank)], window)));
  return most;
}

GatherAttention::Exchange GatherAttention::exchange_for(std::int64_t window) const {
  const auto own = static_cast<std::size_t>(group_.rank());
  const std::vector<PositionRange>& mine = held_[own];
  const std::int64_t num_sequences = kernel_.sizes().num_sequences;
  Exchange exchange;
  exchange.keys = kernels::seen_positions(mine, window);
  exchange.own = runs_in<Run>(mine, mine);
  exchange.own_gathered = runs_in<Run>(mine, exchange.keys);
  for (std::size_t rank = 0; rank < held_.size(); ++rank) {
    std::vector<PositionRange> given;
    std::vector<PositionRange> taken;
    if (rank != own) {
      given = common(mine, kernels::seen_positions(held_[rank], window));
      taken = common(exchange.keys, held_[rank]);
    }
    exchange.given.push_back(runs_in<Run>(given, mine));
    exchange.given_gathered.push_back(runs_in<Run>(given, exchange.keys));
    exchange.taken.push_back(runs_in<Run>(taken, exchange.keys));
    exchange.given_rows.push_back(num_sequences * num_positions(given));
    exchange.taken_rows.push_back(num_sequences * num_positions(taken));
    exchange.num_given += exchange.given_rows.back();
    exchange.num_taken += exchange.taken_rows.back();
  }
  expect(exchange.num_taken == num_sequences * (exchange.key_length() - num_local_),
         "each position that is needed held by one rank");
  return exchange;
}

AttentionPart GatherAttention::part_of(const Exchange& exchange, std::int64_t window) const {
  return {.queries = held_[static_cast<std::size_t>(group_.rank())],
          .keys = exchange.keys,
          .key_length = exchange.key_length(),
          .window = window};
}

TensorView GatherAttention::message(const Tensor& bytes, DType dtype, std::int64_t rows) const {
  const std::int64_t cols = 2 * kernel_.sizes().key_cols();
  return bytes->reinterpret(dtype, {rows, cols});
}

template <class Each>
void GatherAttention::for_each_run(const std::vector<std::vector<Run>>& runs,
                                   std::int64_t sequence_rows, Each each) const {
  std::int64_t message_row = 0;
  for (const std::vector<Run>& of_rank : runs)
    for (std::int64_t s = 0; s < kernel_.sizes().num_sequences; ++s)
      for (const Run& run : of_rank) {
        each(s * sequence_rows + run.begin, message_row, run.count);
        message_row += run.count;
      }
}

TensorView GatherAttention::gather(const Exchange& exchange, const AttentionInputs& inputs) {
  const AttentionSizes& sizes = kernel_.sizes();
  const std::int64_t cols = sizes.key_cols();
  const std::int64_t key_length = exchange.key_length();
  const TensorView keys = keys_->slice_rows(0, sizes.num_sequences * key_length);
  const auto copy_rows = [&](std::int64_t from, const TensorView& rows) {
    kernels::copy(inputs.k.slice_rows(from, from + rows.rows()), rows.slice_cols(0, cols));
    kernels::copy(inputs.v.slice_rows(from, from + rows.rows()), rows.slice_cols(cols, 2 * cols));
  };
  const TensorView send = message(outgoing_, kernel_.compute(), exchange.num_given);
  const TensorView recv = message(incoming_, kernel_.compute(), exchange.num_taken);
  for_each_run(exchange.given, num_local_,
               [&](std::int64_t from, std::int64_t to, std::int64_t count) {
                 copy_rows(from, send.slice_rows(to, to + count));
               });
  Event event = group_.start_all_to_all_v(send, exchange.given_rows, recv, exchange.taken_rows);
  for (std::int64_t s = 0; s < sizes.num_sequences; ++s)
    for (std::size_t i = 0; i < exchange.own.size(); ++i) {
      const std::int64_t to = s * key_length + exchange.own_gathered[i].begin;
      copy_rows(s * num_local_ + exchange.own[i].begin,
                keys.slice_rows(to, to + exchange.own[i].count));
    }
  progress_.wait(event);
  for_each_run(
      exchange.taken, key_length, [&](std::int64_t to, std::int64_t from, std::int64_t count) {
        kernels::copy(recv.slice_rows(from, from + count), keys.slice_rows(to, to + count));
      });
  return keys;
}

void GatherAttention::bring_home(const Exchange& exchange, const TensorView& gathered) {
  const TensorView send = message(outgoing_, DType::f32, exchange.num_taken);
  const TensorView recv = message(incoming_, DType::f32, exchange.num_given);
  for_each_run(exchange.taken, exchange.key_length(),
               [&](std::int64_t from, std::int64_t to, std::int64_t count) {
                 kernels::copy(gathered.slice_rows(from, from + count),
                               send.slice_rows(to, to + count));
               });
  Event event = group_.start_all_to_all_v(send, exchange.taken_rows, recv, exchange.given_rows);
  progress_.wait(event);
  for_each_run(exchange.given_gathered, exchange.key_length(),
               [&](std::int64_t to, std::int64_t from, std::int64_t count) {
                 const TensorView sum = gathered.slice_rows(to, to + count);
                 kernels::add(sum, recv.slice_rows(from, from + count), sum);
               });
}

void GatherAttention::forward(std::int64_t window, const TensorView& sinks,
                              const AttentionInputs& inputs, const TensorView& out,
                              const TensorView& lse, const kernels::Poll& poll) {
  const Exchange& exchange = exchanges_.at(window);
  const TensorView keys = gather(exchange, inputs);
  const std::int64_t cols = kernel_.sizes().key_cols();
  kernel_.forward(part_of(exchange, window),
                  {inputs.q, keys.slice_cols(0, cols), keys.slice_cols(cols, 2 * cols)}, out, lse,
                  kernels::Merge::replace, poll);
  if (!sinks.empty()) kernels::attention_sink_forward(sinks, kernel_.sizes().head_dim, out, lse);
}

void GatherAttention::backward(std::int64_t window, const AttentionInputs& inputs,
                               const AttentionResults& results, const AttentionInputs& gradients,
                               const kernels::Poll& poll) {
  const Exchange& exchange = exchanges_.at(window);
  const AttentionSizes& sizes = kernel_.sizes();
  const std::int64_t cols = sizes.key_cols();
  const TensorView keys = gather(exchange, inputs);
  const TensorView gathered =
      key_gradients_->slice_rows(0, sizes.num_sequences * exchange.key_length());
  const TensorView dk = gathered.slice_cols(0, cols);
  const TensorView dv = gathered.slice_cols(cols, 2 * cols);
  kernel_.backward(part_of(exchange, window),
                   {inputs.q, keys.slice_cols(0, cols), keys.slice_cols(cols, 2 * cols)}, results,
                   {.dq = gradients.q, .dk = dk, .dv = dv}, poll);
  bring_home(exchange, gathered);
  for (std::int64_t s = 0; s < sizes.num_sequences; ++s)
    for (std::size_t i = 0; i < exchange.own.size(); ++i) {
      const std::int64_t from = s * exchange.key_length() + exchange.own_gathered[i].begin;
      const std::int64_t to = s * num_local_ + exchange.own[i].begin;
      const std::int64_t count = exchange.own[i].count;
      kernels::copy(dk.slice_rows(from, from + count), gradients.k.slice_rows(to, to + count));
      kernels::copy(dv.slice_rows(from, from + count), gradients.v.slice_rows(to, to + count));
    }
}

}  // namespace switchyard
