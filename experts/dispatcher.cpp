#include "experts/dispatcher.hpp"

#include <algorithm>
#include <limits>
#include <numeric>

#include "kernels/permute.hpp"
#include "tensor/error.hpp"

namespace switchyard {

namespace {

// What the plan device assumes in place of the counts it cannot read: all experts equally loaded.
void assume_balanced_counts(std::int64_t num_slots, std::span<std::int64_t> counts) {
  const auto num_experts = static_cast<std::int64_t>(counts.size());
  for (std::int64_t e = 0; e < num_experts; ++e)
    counts[static_cast<std::size_t>(e)] = balanced_slots(num_slots, num_experts, e);
}

TensorView used_slots(const Tensor& rows, const Route& route, std::int64_t top_k) {
  return rows->slice_rows(0, route.num_tokens * top_k);
}

}  // namespace

// An expert group is a run of neighbouring ranks, and so is a context group.
ContextSharing sharing_of(const Mesh& mesh) {
  const int num_ranks = mesh.degree(Axis::context);
  return {.num_ranks = num_ranks,
          .first_rank = mesh.index(Axis::world) - mesh.index(Axis::expert),
          .is_uneven = num_ranks > 1 && mesh.config().context_split.pad};
}

DispatchScratch::DispatchScratch(Device& device, const ExpertPlacement& placement,
                                 const ExpertsConfig& config, std::int64_t hidden, DType compute,
                                 std::int64_t num_tokens, RowCapacity& capacity,
                                 const ContextSharing& sharing)
    : slots(device, Purpose::communication, compute, {num_tokens * config.top_k, hidden}) {
  const std::int64_t max_rows =
      max_rows_received(placement, sharing.most_tokens(num_tokens), config.top_k);
  arrival = Tensor::growable(device, Purpose::communication, compute, {max_rows, hidden});
  capacity.add(arrival);
  if (placement.num_ranks == 1) return;
  rows = Tensor::growable(device, Purpose::communication, compute, {max_rows, hidden});
  capacity.add(rows);
  if (sharing.num_ranks == 1) return;
  slot_numbers = Tensor(device, Purpose::communication, DType::i32, {num_tokens * config.top_k, 1});
  arrival_numbers = Tensor::growable(device, Purpose::communication, DType::i32, {max_rows, 1});
  capacity.add(arrival_numbers);
}

Dispatcher::Dispatcher(Group& group, const ExpertsConfig& config, ContextSharing sharing)
    : group_(group),
      placement_{config.num_experts, group.size()},
      top_k_(config.top_k),
      sharing_(sharing) {}

Route Dispatcher::make_route(Device& device, std::int64_t num_tokens) const {
  const std::int64_t num_slots = num_tokens * top_k_;
  expect(most_rows(num_tokens) <= std::numeric_limits<std::int32_t>::max(),
         "rows of a micro-batch are counted in 32 bits");
  Route route;
  route.counts = Tensor(device, Purpose::activation, DType::i32, {placement_.num_experts});
  route.row_of_slot = Tensor(device, Purpose::activation, DType::i32, {num_tokens, top_k_});
  route.token_of_row = Tensor(device, Purpose::activation, DType::i32, {num_slots});
  if (!arrives_in_order())
    route.arrival_of_row =
        Tensor::growable(device, Purpose::activation, DType::i32, {most_rows(num_tokens)});
  const auto num_ranks = static_cast<std::size_t>(group_.size());
  route.expert_counts.resize(static_cast<std::size_t>(placement_.num_experts));
  route.send_rows.resize(num_ranks);
  route.recv_rows.resize(num_ranks);
  route.expert_offsets.resize(static_cast<std::size_t>(num_local_experts()) + 1);
  return route;
}

void Dispatcher::route(const TensorView& indices, const TensorView& token_numbers, Route& route,
                       DispatchScratch& scratch, RowCapacity& capacity) const {
  route.num_tokens = indices.rows();
  kernels::sort_by_expert(indices, route.counts, route.row_of_slot->slice_rows(0, route.num_tokens),
                          used_slots(route.token_of_row, route, top_k_));
  read_counts(route);
  const std::vector<std::int64_t> all_counts = gather_counts(route, capacity);
  fill_ranges(all_counts, route);
  capacity.require(route.max_rows);
  if (arrives_in_order()) return;
  TensorView arrival_numbers;
  if (sharing_.num_ranks > 1)
    arrival_numbers = exchange_token_numbers(token_numbers, route, scratch);
  if (!route.counts->device->is_plan()) fill_arrival(all_counts, arrival_numbers, route);
}

// The token numbers of the rows as they arrive: i32 [R, 1].
TensorView Dispatcher::exchange_token_numbers(const TensorView& token_numbers, const Route& route,
                                              DispatchScratch& scratch) const {
  expect(token_numbers.numel() == route.num_tokens, "a number for each token");
  const TensorView sent = used_slots(scratch.slot_numbers, route, top_k_);
  const TensorView received = scratch.arrival_numbers->slice_rows(0, route.num_rows);
  if (!route.counts->device->is_plan()) {
    const std::int32_t* number = token_numbers.as<std::int32_t>();
    const std::int32_t* token = route.token_of_row->as<std::int32_t>();
    std::int32_t* out = sent.as<std::int32_t>();
    for (std::int64_t row = 0; row < sent.rows(); ++row) out[row] = number[token[row]];
  }
  group_.all_to_all_v(sent, route.send_rows, received, route.recv_rows);
  return received;
}

void Dispatcher::read_counts(Route& route) const {
  if (route.counts->device->is_plan()) {
    assume_balanced_counts(route.num_tokens * top_k_, route.expert_counts);
    return;
  }
  const std::span<const std::int32_t> counts = route.counts->span<std::int32_t>();
  route.expert_counts.assign(counts.begin(), counts.end());
}

// [P, E]: slots of each rank's tokens by expert.
std::vector<std::int64_t> Dispatcher::gather_counts(const Route& route,
                                                    const RowCapacity& capacity) const {
  std::vector<std::int64_t> all(route.expert_counts.size() *
                                static_cast<std::size_t>(group_.size()));
  group_.all_gather_values(route.expert_counts, all);
  if (capacity.is_planned()) fit_to_plan(all, capacity.rows());
  return all;
}

// Balanced counts may exceed a planned capacity that a run measured, as experts that do not divide
// by the ranks load some ranks more than others. Takes rows of other ranks away until they fit.
void Dispatcher::fit_to_plan(std::span<std::int64_t> all_counts, std::int64_t max_rows) const {
  std::int64_t excess = -max_rows;
  for (int p = 0; p < group_.size(); ++p) excess += rows_from_to(all_counts, p, group_.rank());
  const std::int64_t first = placement_.first_expert(group_.rank());
  for (int p = 0; p < group_.size() && excess > 0; ++p) {
    if (p == group_.rank()) continue;
    for (std::int64_t e = first; e < first + num_local_experts(); ++e) {
      std::int64_t& count = all_counts[static_cast<std::size_t>(p * placement_.num_experts + e)];
      const std::int64_t taken = std::clamp<std::int64_t>(excess, 0, count);
      count -= taken;
      excess -= taken;
    }
  }
  expect(excess <= 0, "the planned rows hold at least the rows that a rank sends to itself");
}

std::int64_t Dispatcher::rows_from_to(std::span<const std::int64_t> all_counts, int source,
                                      int target) const {
  const std::int64_t begin = source * placement_.num_experts + placement_.first_expert(target);
  const auto counts =
      all_counts.subspan(static_cast<std::size_t>(begin),
                         static_cast<std::size_t>(placement_.num_local_experts(target)));
  return std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
}

void Dispatcher::fill_ranges(std::span<const std::int64_t> all_counts, Route& route) const {
  const int rank = group_.rank();
  const auto num_experts = static_cast<std::size_t>(placement_.num_experts);
  std::vector<std::int64_t> rows_of_expert(num_experts);  // from all ranks
  for (std::size_t begin = 0; begin < all_counts.size(); begin += num_experts)
    for (std::size_t e = 0; e < num_experts; ++e) rows_of_expert[e] += all_counts[begin + e];
  route.max_rows = 0;
  for (int p = 0; p < group_.size(); ++p) {
    const auto at = static_cast<std::size_t>(p);
    route.send_rows[at] = rows_from_to(all_counts, rank, p);
    route.recv_rows[at] = rows_from_to(all_counts, p, rank);
    route.max_rows = std::max(route.max_rows, rows_from_to(rows_of_expert, 0, p));
  }
  const auto first = static_cast<std::size_t>(placement_.first_expert(rank));
  for (std::size_t e = 0; e + 1 < route.expert_offsets.size(); ++e)
    route.expert_offsets[e + 1] = route.expert_offsets[e] + rows_of_expert[first + e];
  route.num_rows = route.expert_offsets.back();
}

// Rows arrive as (source, local expert, slot); their order here is (local expert, source, slot), or
// (local expert, sources that share sequences, number of the token).
void Dispatcher::fill_arrival(std::span<const std::int64_t> all_counts,
                              const TensorView& arrival_numbers, Route& route) const {
  const std::int64_t first = placement_.first_expert(group_.rank());
  std::vector<std::int64_t> next_arrival(route.recv_rows.size());  // by source
  std::exclusive_scan(route.recv_rows.begin(), route.recv_rows.end(), next_arrival.begin(),
                      std::int64_t{0});
  std::int32_t* arrival = route.arrival_of_row->as<std::int32_t>();
  for (std::int64_t e = first; e < first + num_local_experts(); ++e) {
    std::int32_t* shared = arrival;  // rows of the sources that share sequences with the next one
    for (int p = 0; p < group_.size(); ++p) {
      const auto source = static_cast<std::size_t>(p);
      const std::int64_t count =
          all_counts[source * static_cast<std::size_t>(placement_.num_experts) +
                     static_cast<std::size_t>(e)];
      std::int32_t* const begin = arrival;
      arrival += count;
      std::iota(begin, arrival, static_cast<std::int32_t>(next_arrival[source]));
      next_arrival[source] += count;
      if (arrival_numbers.empty() || (sharing_.first_rank + p) % sharing_.num_ranks == 0) {
        shared = begin;
        continue;
      }
      const std::int32_t* number = arrival_numbers.as<std::int32_t>();
      std::inplace_merge(shared, begin, arrival, [number](std::int32_t a, std::int32_t b) {
        return number[a] < number[b];
      });
    }
  }
}

void Dispatcher::dispatch(const TensorView& x, const Route& route, DispatchScratch& scratch,
                          const TensorView& x_rows) const {
  const TensorView token_of_row = used_slots(route.token_of_row, route, top_k_);
  if (!moves_rows()) {
    kernels::gather_rows(x, token_of_row, x_rows);
    return;
  }
  const TensorView slots = used_slots(scratch.slots, route, top_k_);
  kernels::gather_rows(x, token_of_row, slots);
  to_experts(slots, route, scratch.arrival->slice_rows(0, route.num_rows), x_rows);
}

TensorView Dispatcher::to_experts(const TensorView& slots, const Route& route,
                                  const TensorView& spare, const TensorView& rows) const {
  if (!moves_rows()) return slots;
  const TensorView arrival = arrives_in_order() ? rows : spare;
  group_.all_to_all_v(slots, route.send_rows, arrival, route.recv_rows);
  if (!arrives_in_order())
    kernels::gather_rows(arrival, route.arrival_of_row->slice_rows(0, route.num_rows), rows);
  return rows;
}

TensorView Dispatcher::from_experts(const TensorView& rows, const Route& route,
                                    const TensorView& spare, const TensorView& slots) const {
  if (!moves_rows()) return rows;
  const TensorView arrival = arrives_in_order() ? rows : spare;
  if (!arrives_in_order())
    kernels::scatter_rows(rows, route.arrival_of_row->slice_rows(0, route.num_rows), arrival);
  group_.all_to_all_v(arrival, route.recv_rows, slots, route.send_rows);
  return slots;
}

}  // namespace switchyard
