#include "parallel/gather_attention.hpp"

#include <algorithm>
#include <numeric>
#include <utility>

#include "kernels/attention_sink.hpp"
#include "kernels/elementwise.hpp"
#include "tensor/error.hpp"

namespace switchyard {

namespace {

// Calls each(rows of `many`, rows of `few`) for the runs of every sequence, in the order in which
// rows lie in a message: `many` rows a sequence on one side, one after the other on the other.
template <class Run, class Each>
std::int64_t for_each_run(std::span<const Run> runs, std::int64_t num_sequences,
                          std::int64_t sequence_rows, std::int64_t message_row, Each each) {
  for (std::int64_t s = 0; s < num_sequences; ++s)
    for (const Run& run : runs) {
      each(s * sequence_rows + run.begin, message_row, run.count);
      message_row += run.count;
    }
  return message_row;
}

}  // namespace

GatherAttention::GatherAttention(Group& group, AttentionPartKernel& kernel,
                                 std::vector<std::vector<Segment>> held,
                                 std::span<const std::int64_t> windows, ExchangeProgress& progress)
    : group_(group), kernel_(kernel), progress_(progress), held_(std::move(held)) {
  expect(std::ssize(held_) == group.size(), "the segments of each rank of the group");
  num_local_ = num_positions(held_[static_cast<std::size_t>(group.rank())]);
  std::int64_t most_given = 0;
  std::int64_t most_taken = 0;
  for (const std::int64_t window : windows) {
    const Exchange& exchange = exchanges_.emplace(window, exchange_for(window)).first->second;
    most_given = std::max(most_given, exchange.num_given);
    most_taken = std::max(most_taken, exchange.num_taken);
  }
  Device& device = kernel.device();
  const std::int64_t cols = 2 * kernel.sizes().key_cols();
  const std::int64_t bytes = cols * size_of(kernel.compute());
  const std::int64_t gradient_bytes = cols * size_of(DType::f32);
  keys_ = Tensor(device, Purpose::communication, kernel.compute(), {most_taken, cols});
  key_gradients_ = Tensor(device, Purpose::communication, DType::f32, {most_taken, cols});
  sums_ = Tensor(device, Purpose::communication, DType::f32,
                 {kernel.sizes().num_sequences * num_local_, cols});
  outgoing_ = Tensor(device, Purpose::communication, DType::u8,
                     {std::max(most_given * bytes, most_taken * gradient_bytes)});
  incoming_ = Tensor(device, Purpose::communication, DType::u8,
                     {std::max(most_taken * bytes, most_given * gradient_bytes)});
}

std::int64_t GatherAttention::max_keys(std::span<const std::vector<Segment>> held, int rank,
                                       std::span<const std::int64_t> windows) {
  std::int64_t most = 0;
  for (const std::int64_t window : windows)
    most =
        std::max(most, num_positions(seen_positions(held[static_cast<std::size_t>(rank)], window)));
  return most;
}

// The positions that both hold, as rows of those who store `rows`.
std::vector<GatherAttention::Run> GatherAttention::runs_of(std::span<const Segment> part,
                                                           std::span<const Segment> rows) {
  std::vector<Run> runs;
  for (const Segment& stored : rows)
    for (const Segment& wanted : part) {
      const std::int64_t begin = std::max(stored.begin, wanted.begin);
      const std::int64_t end = std::min(stored.end(), wanted.end());
      if (begin < end) runs.push_back({count_before(rows, begin), end - begin});
    }
  return runs;
}

GatherAttention::Exchange GatherAttention::exchange_for(std::int64_t window) const {
  const std::vector<Segment>& mine = held_[static_cast<std::size_t>(group_.rank())];
  const std::int64_t num_sequences = kernel_.sizes().num_sequences;
  Exchange exchange;
  exchange.keys = seen_positions(mine, window);
  const auto add = [&](std::vector<Run> runs, std::vector<std::vector<Run>>& all,
                       std::vector<std::int64_t>& rows, std::int64_t& total) {
    std::int64_t count = 0;
    for (const Run& run : runs) count += run.count;
    all.push_back(std::move(runs));
    rows.push_back(count * num_sequences);
    total += rows.back();
  };
  for (const std::vector<Segment>& theirs : held_) {
    // Both sides list the positions that they share in ascending order.
    add(runs_of(seen_positions(theirs, window), mine), exchange.given, exchange.given_rows,
        exchange.num_given);
    add(runs_of(theirs, exchange.keys), exchange.taken, exchange.taken_rows, exchange.num_taken);
  }
  expect(exchange.num_taken == num_sequences * num_positions(exchange.keys),
         "each position that is needed held by one rank");
  return exchange;
}

AttentionPart GatherAttention::part_of(const Exchange& exchange, std::int64_t window) const {
  return {.queries = held_[static_cast<std::size_t>(group_.rank())],
          .keys = exchange.keys,
          .key_length = num_positions(exchange.keys),
          .window = window};
}

TensorView GatherAttention::outgoing(DType dtype, std::int64_t rows) const {
  const std::int64_t cols = 2 * kernel_.sizes().key_cols();
  return {outgoing_->data, {rows, cols}, dtype, cols, outgoing_->device};
}

TensorView GatherAttention::incoming(DType dtype, std::int64_t rows) const {
  const std::int64_t cols = 2 * kernel_.sizes().key_cols();
  return {incoming_->data, {rows, cols}, dtype, cols, incoming_->device};
}

void GatherAttention::exchange_rows(const TensorView& send, std::span<const std::int64_t> send_rows,
                                    const TensorView& recv,
                                    std::span<const std::int64_t> recv_rows) {
  Event event = group_.start_all_to_all_v(send, send_rows, recv, recv_rows);
  progress_.wait(event);
}

TensorView GatherAttention::gather(const Exchange& exchange, const AttentionInputs& inputs,
                                   const kernels::Poll& poll) {
  const AttentionSizes& sizes = kernel_.sizes();
  const std::int64_t cols = sizes.key_cols();
  const TensorView send = outgoing(kernel_.compute(), exchange.num_given);
  const TensorView recv = incoming(kernel_.compute(), exchange.num_taken);
  std::int64_t row = 0;
  for (const std::vector<Run>& runs : exchange.given)
    row = for_each_run(
        std::span(runs), sizes.num_sequences, num_local_, row,
        [&](std::int64_t from, std::int64_t to, std::int64_t count) {
          const TensorView rows = send.slice_rows(to, to + count);
          kernels::copy(inputs.k.slice_rows(from, from + count), rows.slice_cols(0, cols));
          kernels::copy(inputs.v.slice_rows(from, from + count), rows.slice_cols(cols, 2 * cols));
        });
  exchange_rows(send, exchange.given_rows, recv, exchange.taken_rows);
  const TensorView keys = keys_->slice_rows(0, exchange.num_taken);
  row = 0;
  for (const std::vector<Run>& runs : exchange.taken)
    row = for_each_run(std::span(runs), sizes.num_sequences, num_positions(exchange.keys), row,
                       [&](std::int64_t to, std::int64_t from, std::int64_t count) {
                         kernels::copy(recv.slice_rows(from, from + count),
                                       keys.slice_rows(to, to + count));
                       });
  if (poll) poll();
  return keys;
}

void GatherAttention::forward(std::int64_t window, const TensorView& sinks,
                              const AttentionInputs& inputs, const TensorView& out,
                              const TensorView& lse, const kernels::Poll& poll) {
  const Exchange& exchange = exchanges_.at(window);
  const TensorView keys = gather(exchange, inputs, poll);
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
  const TensorView keys = gather(exchange, inputs, poll);
  const TensorView gathered = key_gradients_->slice_rows(0, exchange.num_taken);
  kernel_.backward(part_of(exchange, window),
                   {inputs.q, keys.slice_cols(0, cols), keys.slice_cols(cols, 2 * cols)}, results,
                   {.dq = gradients.q,
                    .dk = gathered.slice_cols(0, cols),
                    .dv = gathered.slice_cols(cols, 2 * cols)},
                   poll);

  // Home, the way they came.
  const TensorView send = outgoing(DType::f32, exchange.num_taken);
  const TensorView recv = incoming(DType::f32, exchange.num_given);
  std::int64_t row = 0;
  for (const std::vector<Run>& runs : exchange.taken)
    row = for_each_run(std::span(runs), sizes.num_sequences, num_positions(exchange.keys), row,
                       [&](std::int64_t from, std::int64_t to, std::int64_t count) {
                         kernels::copy(gathered.slice_rows(from, from + count),
                                       send.slice_rows(to, to + count));
                       });
  exchange_rows(send, exchange.taken_rows, recv, exchange.given_rows);
  kernels::fill_zero(sums_);
  row = 0;
  for (const std::vector<Run>& runs : exchange.given)
    row = for_each_run(std::span(runs), sizes.num_sequences, num_local_, row,
                       [&](std::int64_t to, std::int64_t from, std::int64_t count) {
                         const TensorView sum = sums_->slice_rows(to, to + count);
                         kernels::add(sum, recv.slice_rows(from, from + count), sum);
                       });
  kernels::copy(sums_->slice_cols(0, cols), gradients.k);
  kernels::copy(sums_->slice_cols(cols, 2 * cols), gradients.v);
}

}  // namespace switchyard
