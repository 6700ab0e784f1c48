#include "experts/dispatch/token_return.hpp"

#include <algorithm>
#include <span>
#include <vector>

#include "kernels/host_copy.hpp"
#include "kernels/routing/permute.hpp"

namespace switchyard {

namespace {

// Rows that a token can have on a rank with so many places; at least one, as a dim of a tensor.
std::int64_t most_rows_of_token(std::int64_t top_k, std::int64_t num_places) {
  return std::clamp<std::int64_t>(num_places, 1, top_k);
}

TensorView first_rows(const Tensor& buffer, std::int64_t num_rows) {
  return buffer->slice_rows(0, num_rows);
}

TensorView as_column(const TensorView& view) {
  return view.reshape({view.numel(), 1});
}

RankRows by_rank(const RowRanges& ranges) {
  return {ranges.first, ranges.count};
}

// By summand: where it is added to. Writes to `summands`, i32 [sums, most], which summands each sum
// has, ascending, then -1. Returns the place of each in that, flat.
std::vector<std::int32_t> write_summands(std::span<const std::int32_t> sum_of,
                                         const TensorView& summands) {
  const std::int64_t most = summands.cols();
  std::vector<std::int32_t> places;
  std::vector<std::int64_t> num_before(static_cast<std::size_t>(summands.rows()), 0);
  kernels::write_from_host<std::int32_t>(summands.flat(), [&](std::span<std::int32_t> written) {
    std::ranges::fill(written, -1);
    for (std::size_t i = 0; i < sum_of.size(); ++i) {
      const auto place = sum_of[i] * most + num_before[static_cast<std::size_t>(sum_of[i])]++;
      written[static_cast<std::size_t>(place)] = static_cast<std::int32_t>(i);
      places.push_back(static_cast<std::int32_t>(place));
    }
  });
  return places;
}

}  // namespace

ReturnScratch::ReturnScratch(Device& device, std::int64_t top_k, int num_ranks,
                             std::int64_t num_places, std::int64_t width, std::int64_t num_tokens,
                             std::int64_t most_tokens, std::int64_t most_rows,
                             RowCapacity& capacity) {
  const auto fixed = [&](std::int64_t rows, std::int64_t cols) {
    return Tensor(device, Purpose::communication, DType::f32, {rows, cols});
  };
  const auto grow = [&](Tensor& tensor, std::int64_t rows, std::int64_t cols) {
    tensor = Tensor::growable(device, Purpose::communication, DType::f32, {rows, cols});
    capacity.add(tensor);
  };
  const std::int64_t all_tokens = most_tokens * num_ranks;
  const std::int64_t most_nodes = std::min<std::int64_t>(top_k, num_ranks);
  grow(of_rank, most_rows, width);
  grow(forwarded, all_tokens * most_nodes, width);
  grow(of_node, all_tokens, width);
  returned = fixed(num_tokens * most_nodes, width);
  slot_weights = fixed(num_tokens * top_k, 1);
  grow(row_weights, most_rows, 1);
  grow(dweights, most_rows, most_rows_of_token(top_k, num_places));
}

TokenReturn::TokenReturn(Group& group, const Placement& placement, std::int64_t ranks_per_node,
                         std::int64_t top_k)
    : group_(group), placement_(placement), top_k_(top_k), nodes_(group, ranks_per_node) {}

void TokenReturn::add_to(Route& route, Device& device, std::int64_t num_tokens,
                         std::int64_t most_tokens, std::int64_t most_rows) const {
  const auto growable = [&](DType dtype, std::int64_t rows, std::int64_t cols) {
    return Tensor::growable(device, Purpose::activation, dtype, {rows, cols});
  };
  const std::int64_t most = most_rows_of_token(top_k_, placement_.most_places());
  route.rows_of_delivered = growable(DType::i32, most_rows, most);
  route.weights_of_delivered = growable(DType::f32, most_rows, most);
  route.choice_of_arrival = Tensor::growable(device, Purpose::activation, DType::i32, {most_rows});
  const auto num_ranks = std::ssize(nodes_.ranks_of(nodes_.node_of(group_.rank())));
  route.copies_of_arriving =
      growable(DType::i32, most_tokens * group_.size(), std::min<std::int64_t>(top_k_, num_ranks));
  route.nodes_of_token = Tensor(device, Purpose::activation, DType::i32,
                                {num_tokens, std::min<std::int64_t>(top_k_, nodes_.num_nodes())});
}

void TokenReturn::route(Route& route) const {
  if (route.offsets->device->is_plan()) return;
  const DeliveryCounts& counts = route.delivery;
  const auto host = [](const Tensor& numbers, std::int64_t count) {
    return kernels::HostContents<std::int32_t>(first_rows(numbers, count));
  };
  const auto delivered = host(route.delivered_row, route.num_rows);
  const std::vector<std::int32_t> places =
      write_summands(delivered.span(), first_rows(route.rows_of_delivered, counts.num_delivered));
  std::vector<std::int32_t> by_arrival = places;
  if (!route.arrival_of_row.empty()) {
    const auto arrival = host(route.arrival_of_row, route.num_rows);
    for (std::size_t row = 0; row < places.size(); ++row)
      by_arrival[static_cast<std::size_t>(arrival.span()[row])] = places[row];
  }
  kernels::copy_from_host<std::int32_t>(by_arrival,
                                        first_rows(route.choice_of_arrival, route.num_rows));
  write_summands(host(route.forwarded_row, counts.num_forwarded).span(),
                 first_rows(route.copies_of_arriving, counts.num_arriving));
  write_summands(host(route.leaving_token, counts.num_leaving).span(),
                 first_rows(route.nodes_of_token, route.num_tokens));
}

void TokenReturn::send_weights(const TensorView& weights, Route& route,
                               const ReturnScratch& scratch) const {
  const Profile::ControlScope control(weights.device->profile());
  const TensorView sent = first_rows(scratch.slot_weights, route.num_sent);
  const TensorView received = first_rows(scratch.row_weights, route.num_rows);
  kernels::scatter_rows(as_column(weights), first_rows(route.row_of_slot, route.num_tokens).flat(),
                        sent);
  group_.all_to_all_v(sent, rows_to_ranks(route, placement_, {}).count, received,
                      rows_from_ranks(route, group_.size(), {}).count);
  kernels::scatter_rows(
      received, first_rows(route.choice_of_arrival, route.num_rows),
      as_column(first_rows(route.weights_of_delivered, route.delivery.num_delivered)));
}

void TokenReturn::sum(const TensorView& rows, Weights weights, const Route& route,
                      const ReturnScratch& scratch, const TensorView& sums) const {
  const DeliveryCounts& counts = route.delivery;
  const TensorView of_rank = first_rows(scratch.of_rank, counts.num_delivered);
  const TensorView summands = first_rows(route.rows_of_delivered, counts.num_delivered);
  if (weights == Weights::of_choices)
    kernels::combine_rows(rows, summands,
                          first_rows(route.weights_of_delivered, counts.num_delivered), of_rank);
  else
    kernels::sum_rows(rows, summands, of_rank);
  const TensorView forwarded = first_rows(scratch.forwarded, counts.num_forwarded);
  group_
      .start_all_to_all_v(of_rank, by_rank(counts.delivered), forwarded, by_rank(counts.forwarded))
      .wait(sums.device->compute_stream());
  const TensorView of_node = first_rows(scratch.of_node, counts.num_arriving);
  kernels::sum_rows(forwarded, first_rows(route.copies_of_arriving, counts.num_arriving), of_node);
  const TensorView returned = first_rows(scratch.returned, counts.num_leaving);
  group_.start_all_to_all_v(of_node, by_rank(counts.arriving), returned, by_rank(counts.leaving))
      .wait(sums.device->compute_stream());
  kernels::sum_rows(returned, first_rows(route.nodes_of_token, route.num_tokens), sums);
}

void TokenReturn::backward(const TensorView& dsums, const TensorView& rows, const Route& route,
                           const ReturnScratch& scratch, const TensorView& drows,
                           const TensorView& dweights) const {
  const std::int64_t num_delivered = route.delivery.num_delivered;
  const TensorView of_rows = first_rows(scratch.dweights, num_delivered);
  kernels::combine_rows_backward(dsums, rows, first_rows(route.rows_of_delivered, num_delivered),
                                 first_rows(route.weights_of_delivered, num_delivered), drows,
                                 of_rows);
  const Profile::ControlScope control(dsums.device->profile());
  const TensorView sent = first_rows(scratch.row_weights, route.num_rows);
  const TensorView received = first_rows(scratch.slot_weights, route.num_sent);
  kernels::gather_rows(as_column(of_rows), first_rows(route.choice_of_arrival, route.num_rows),
                       sent);
  group_.all_to_all_v(sent, rows_from_ranks(route, group_.size(), {}).count, received,
                      rows_to_ranks(route, placement_, {}).count);
  kernels::gather_rows(received, first_rows(route.row_of_slot, route.num_tokens).flat(),
                       as_column(dweights));
}

}  // namespace switchyard
