#include "experts/dispatcher.hpp"

#include <algorithm>
#include <limits>
#include <numeric>

#include "kernels/arrival.hpp"
#include "kernels/permute.hpp"
#include "tensor/error.hpp"

namespace switchyard {

namespace {

TensorView used(const Tensor& rows, std::int64_t num_rows) {
  return rows->slice_rows(0, num_rows);
}

std::int64_t sum_of(std::span<const std::int64_t> counts) {
  return std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
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
    : counts(device, Purpose::communication, DType::i32, {placement.num_experts}),
      recv_counts(device, Purpose::communication, DType::i32,
                  {placement.num_ranks * placement.max_local_experts()}),
      slots(device, Purpose::communication, compute, {num_tokens * config.top_k, hidden}) {
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
  kernels::sort_by_expert(indices, scratch.counts, used(route.row_of_slot, route.num_tokens),
                          used(route.token_of_row, route.num_tokens * top_k_));
  const TensorView recv_counts = exchange_counts(scratch);
  fill_ranges(read_counts(scratch, recv_counts, route, capacity), route);
  capacity.require(route.num_rows);
  if (arrives_in_order()) return;
  TensorView arrival_numbers;
  if (sharing_.num_ranks > 1)
    arrival_numbers = exchange_token_numbers(token_numbers, route, scratch);
  kernels::arrival_order(recv_counts.reshape({group_.size(), num_local_experts()}), arrival_numbers,
                         {.first = sharing_.first_rank, .size = sharing_.num_ranks},
                         used(route.arrival_of_row, route.num_rows));
}

// Each rank tells each other how many rows it has for each of that one's experts: i32 [P, local].
TensorView Dispatcher::exchange_counts(DispatchScratch& scratch) const {
  if (!moves_rows()) return scratch.counts;
  const auto num_ranks = static_cast<std::size_t>(group_.size());
  std::vector<std::int64_t> told(num_ranks);
  const std::vector<std::int64_t> heard(num_ranks, num_local_experts());
  for (int p = 0; p < group_.size(); ++p)
    told[static_cast<std::size_t>(p)] = placement_.num_local_experts(p);
  const TensorView recv = used(scratch.recv_counts, group_.size() * num_local_experts());
  group_.all_to_all_v(scratch.counts->reshape({placement_.num_experts, 1}), told,
                      recv.reshape({recv.numel(), 1}), heard);
  return recv;
}

// The token numbers of the rows as they arrive: i32 [R, 1].
TensorView Dispatcher::exchange_token_numbers(const TensorView& token_numbers, const Route& route,
                                              DispatchScratch& scratch) const {
  expect(token_numbers.numel() == route.num_tokens, "a number for each token");
  const TensorView sent = used(scratch.slot_numbers, route.num_sent);
  const TensorView received = used(scratch.arrival_numbers, route.num_rows);
  kernels::gather_rows(token_numbers.reshape({route.num_tokens, 1}),
                       used(route.token_of_row, route.num_sent), sent);
  group_.all_to_all_v(sent, route.send_rows, received, route.recv_rows);
  return received;
}

// The one place where the host reads what the step computes: the sizes of the exchanges to come.
// Fills route.expert_counts and returns recv_counts.
std::vector<std::int64_t> Dispatcher::read_counts(const DispatchScratch& scratch,
                                                  const TensorView& recv_counts, Route& route,
                                                  RowCapacity& capacity) const {
  if (recv_counts.device->is_plan()) return assume_counts(route, capacity);
  const std::span<const std::int32_t> counts = scratch.counts->span<std::int32_t>();
  route.expert_counts.assign(counts.begin(), counts.end());
  const std::span<const std::int32_t> received = recv_counts.span<std::int32_t>();
  return {received.begin(), received.end()};
}

// What a plan assumes in place of the counts that nobody can read: all experts equally loaded, the
// remainder on the first ones, by every rank alike. So it knows what the fullest rank receives.
std::vector<std::int64_t> Dispatcher::assume_counts(Route& route, RowCapacity& capacity) const {
  const std::int64_t num_slots = route.num_tokens * top_k_;
  for (std::int64_t e = 0; e < placement_.num_experts; ++e)
    route.expert_counts[static_cast<std::size_t>(e)] =
        balanced_slots(num_slots, placement_.num_experts, e);
  const auto begin = route.expert_counts.begin() + placement_.first_expert(group_.rank());
  std::vector<std::int64_t> recv_counts;
  for (int p = 0; p < group_.size(); ++p) {
    recv_counts.insert(recv_counts.end(), begin, begin + num_local_experts());
    capacity.require(group_.size() * rows_to(p, route.expert_counts));
  }
  if (capacity.is_planned()) fit_to_plan(recv_counts, capacity.rows());
  return recv_counts;
}

// Balanced counts may exceed a planned capacity that a run measured, as experts that do not divide
// by the ranks load some ranks more than others. Takes rows of other ranks away until they fit.
void Dispatcher::fit_to_plan(std::span<std::int64_t> recv_counts, std::int64_t max_rows) const {
  std::int64_t excess = sum_of(recv_counts) - max_rows;
  const auto num_local = static_cast<std::size_t>(num_local_experts());
  for (std::size_t i = 0; i < recv_counts.size() && excess > 0; ++i) {
    if (i / num_local == static_cast<std::size_t>(group_.rank())) continue;
    const std::int64_t taken = std::clamp<std::int64_t>(excess, 0, recv_counts[i]);
    recv_counts[i] -= taken;
    excess -= taken;
  }
  expect(excess <= 0, "the planned rows hold at least the rows that a rank sends to itself");
}

std::int64_t Dispatcher::rows_to(int rank, std::span<const std::int64_t> expert_counts) const {
  return sum_of(
      expert_counts.subspan(static_cast<std::size_t>(placement_.first_expert(rank)),
                            static_cast<std::size_t>(placement_.num_local_experts(rank))));
}

// recv_counts: [P, local experts].
void Dispatcher::fill_ranges(std::span<const std::int64_t> recv_counts, Route& route) const {
  route.num_sent = sum_of(route.expert_counts);
  route.num_dropped = route.num_tokens * top_k_ - route.num_sent;
  const auto num_local = static_cast<std::size_t>(num_local_experts());
  std::vector<std::int64_t> rows_of_expert(num_local);
  for (int p = 0; p < group_.size(); ++p) {
    const auto at = static_cast<std::size_t>(p);
    const auto from_there = recv_counts.subspan(at * num_local, num_local);
    route.send_rows[at] = rows_to(p, route.expert_counts);
    route.recv_rows[at] = sum_of(from_there);
    for (std::size_t e = 0; e < num_local; ++e) rows_of_expert[e] += from_there[e];
  }
  std::inclusive_scan(rows_of_expert.begin(), rows_of_expert.end(),
                      route.expert_offsets.begin() + 1);
  route.num_rows = route.expert_offsets.back();
}

void Dispatcher::dispatch(const TensorView& x, const Route& route, DispatchScratch& scratch,
                          const TensorView& x_rows) const {
  const TensorView token_of_row = used(route.token_of_row, route.num_sent);
  if (!moves_rows()) {
    kernels::gather_rows(x, token_of_row, x_rows);
    return;
  }
  const TensorView slots = used(scratch.slots, route.num_sent);
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
