#include "experts/dispatch/dispatcher.hpp"

#include <algorithm>
#include <limits>
#include <numeric>

#include "kernels/host_copy.hpp"
#include "kernels/routing/arrival.hpp"
#include "kernels/routing/group_offsets.hpp"
#include "kernels/routing/permute.hpp"
#include "kernels/routing/place_choices.hpp"
#include "tensor/error.hpp"

namespace switchyard {

namespace {

TensorView used(const Tensor& rows, std::int64_t num_rows) {
  return rows->slice_rows(0, num_rows);
}

// A part has more than half of the rows that it may have (cut_rows).
std::int64_t most_parts(std::int64_t num_rows, std::int64_t max_rows) {
  return 2 * num_rows / max_rows + 1;
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

DispatchScratch::DispatchScratch(Device& device, const Placement& placement,
                                 const ExpertsConfig& experts, std::int64_t hidden, DType compute,
                                 std::int64_t num_tokens, RowCapacity& capacity,
                                 const ContextSharing& sharing, RowUnits row_units,
                                 std::int64_t padded_rows)
    : counts(device, Purpose::communication, DType::i32, {placement.num_places()}),
      recv_counts(device, Purpose::communication, DType::i32,
                  {placement.num_ranks() * placement.most_places()}),
      slots(device, Purpose::communication, compute,
            {most_sorted_rows(placement, num_tokens * experts.top_k, padded_rows), hidden}),
      config(experts.dispatch) {
  const std::int64_t max_rows =
      max_rows_received(placement, sharing.most_tokens(num_tokens), experts.top_k);
  if (placement.has_replicas())
    places = Tensor(device, Purpose::communication, DType::i32, {num_tokens, experts.top_k});
  units = std::move(row_units);
  if (units.rows > 0) {
    unit_counts = Tensor(device, Purpose::communication, DType::i32,
                         {placement.num_places(), units.per_rank});
    recv_unit_counts = Tensor(device, Purpose::communication, DType::i32,
                              {placement.num_ranks() * placement.most_places() * units.per_rank});
  }
  const std::int64_t at_once = rows_at_once(experts, placement, max_rows);
  arrival = Tensor::growable(device, Purpose::communication, compute, {at_once, hidden});
  capacity.add(arrival);
  if (placement.num_ranks() == 1) return;
  rows = Tensor::growable(device, Purpose::communication, compute, {at_once, hidden});
  capacity.add(rows);
  if (experts.max_rows > 0) {
    for (Tensor* cuts : {&received_cuts, &sent_cuts})
      *cuts = Tensor(device, Purpose::communication, DType::i32,
                     {placement.num_ranks() * (most_parts(max_rows, experts.max_rows) + 1)});
    sent_again =
        Tensor(device, Purpose::communication, compute, {num_tokens * experts.top_k, hidden});
  }
  // With a bound on what a rank holds tokens that go node by node may have to travel as rows.
  const bool has_rows_out = config.kind == DispatchKind::all_to_all ||
                            (config.kind == DispatchKind::hierarchical && experts.max_rows > 0);
  add_wire(device, compute, hidden, slots->rows(), at_once, has_rows_out, capacity);
  if (config.kind != DispatchKind::all_to_all)
    delivery.emplace(device, experts, placement.num_ranks(), hidden, compute, num_tokens,
                     sharing.most_tokens(num_tokens), max_rows, capacity);
  if (config.returns == DispatchReturn::summed)
    back.emplace(device, experts.top_k, placement.num_ranks(), placement.most_places(), hidden,
                 num_tokens, sharing.most_tokens(num_tokens), max_rows, capacity);
  if (sharing.num_ranks == 1) return;
  slot_numbers =
      Tensor(device, Purpose::communication, DType::i32, {num_tokens * experts.top_k, 1});
  arrival_numbers = Tensor::growable(device, Purpose::communication, DType::i32, {max_rows, 1});
  capacity.add(arrival_numbers);
}

void DispatchScratch::add_wire(Device& device, DType compute, std::int64_t hidden,
                               std::int64_t num_slots, std::int64_t at_once, bool has_rows_out,
                               RowCapacity& capacity) {
  const auto add = [&](kernels::WireFormat format, Tensor& wire_slots, Tensor& received) {
    if (!kernels::is_packed(format, compute)) return;
    const std::int64_t bytes = kernels::wire_row_bytes(format, compute, hidden);
    wire_slots = Tensor(device, Purpose::communication, DType::u8, {num_slots, bytes});
    received = Tensor::growable(device, Purpose::communication, DType::u8, {at_once, bytes});
    capacity.add(received);
  };
  if (has_rows_out) add(config.wire, out_slots, out_rows);
  if (config.returns == DispatchReturn::rows) add(config.wire_back(), back_slots, back_rows);
}

WireRows DispatchScratch::wire_rows(kernels::WireFormat format, const Tensor& slots,
                                    const Tensor& rows) {
  if (slots.empty()) return {};
  return {format, slots->cols(), slots, rows};
}

std::int64_t most_sorted_rows(const Placement& placement, std::int64_t num_slots,
                              std::int64_t padded_rows) {
  if (placement.num_ranks() == 1) return num_slots;
  return std::max(num_slots, placement.num_places() * padded_rows);
}

std::int64_t rows_at_once(const ExpertsConfig& config, const Placement& placement,
                          std::int64_t most_rows) {
  return placement.num_ranks() > 1 && config.max_rows > 0 ? std::min(config.max_rows, most_rows)
                                                          : most_rows;
}

Dispatcher::Dispatcher(Group& group, const Placement& placement, std::int64_t top_k,
                       ContextSharing sharing, const DispatchConfig& config, std::int64_t max_rows)
    : group_(group), placement_(placement), top_k_(top_k), sharing_(sharing), max_rows_(max_rows) {
  expect(placement.num_ranks() == group.size(), "a placement over the ranks of the group");
  if (moves_rows() && config.kind != DispatchKind::all_to_all)
    delivery_.emplace(group, placement, config, top_k);
  if (moves_rows() && config.returns == DispatchReturn::summed)
    return_.emplace(group, placement, config.ranks_per_node, top_k);
}

Route Dispatcher::make_route(Device& device, std::int64_t num_tokens, std::int64_t unit_rows,
                             std::int64_t padded_rows) const {
  const std::int64_t num_slots = num_tokens * top_k_;
  expect(most_rows(num_tokens) <= std::numeric_limits<std::int32_t>::max(),
         "fewer than 2^31 rows in a micro-batch");
  Route route;
  route.offsets = Tensor(device, Purpose::activation, DType::i32, {num_local_places() + 1});
  if (unit_rows > 0)
    route.unit_offsets =
        Tensor(device, Purpose::activation, DType::i32,
               {num_local_places() * group_.size() * (num_tokens / unit_rows) + 1});
  route.row_of_slot = Tensor(device, Purpose::activation, DType::i32, {num_tokens, top_k_});
  route.token_of_row = Tensor(device, Purpose::activation, DType::i32,
                              {most_sorted_rows(placement_, num_slots, padded_rows)});
  if (has_arrival_order(padded_rows))
    route.arrival_of_row =
        Tensor::growable(device, Purpose::activation, DType::i32, {most_rows(num_tokens)});
  if (delivery_)
    delivery_->add_to(route, device, num_tokens, sharing_.most_tokens(num_tokens),
                      most_rows(num_tokens));
  if (return_)
    return_->add_to(route, device, num_tokens, sharing_.most_tokens(num_tokens),
                    most_rows(num_tokens));
  if (!moves_rows()) return route;
  route.place_counts.resize(static_cast<std::size_t>(placement_.num_places()));
  route.recv_counts.resize(static_cast<std::size_t>(group_.size() * num_local_places()));
  route.expert_offsets.resize(static_cast<std::size_t>(num_local_places()) + 1);
  return route;
}

void Dispatcher::route(const RouteRequest& request, Route& route, DispatchScratch& scratch,
                       RowCapacity& capacity) const {
  route.num_tokens = request.indices.rows();
  route.padded_rows = moves_rows() ? request.padded_rows : 0;
  route.cuts = {};
  route.travels_once = false;
  route.delivery = {};
  const TensorView sorted = sorted_by(request, scratch);
  const std::int64_t num_sorted = route.padded_rows > 0
                                      ? placement_.num_places() * route.padded_rows
                                      : route.num_tokens * top_k_;
  kernels::sort_by_expert(sorted, place_of_sorted(), scratch.counts,
                          used(route.row_of_slot, route.num_tokens),
                          used(route.token_of_row, num_sorted), route.padded_rows);
  const TensorView recv_counts = exchange_counts(scratch);
  const TensorView counts_of_ranks = recv_counts.reshape({group_.size(), num_local_places()});
  kernels::group_offsets(counts_of_ranks, route.offsets);
  if (moves_rows()) {
    read_counts(scratch, recv_counts, route, capacity);
    fill_sums(route);
  } else {
    route.num_sent = route.num_rows = route.num_tokens * top_k_;
  }
  capacity.require(route.num_rows);
  const bool has_units = request.by_unit && scratch.units.rows > 0;
  if (has_units) find_units(sorted, route, scratch);
  if (has_arrival_order(route.padded_rows)) {
    TensorView arrival_numbers;
    if (sharing_.num_ranks > 1)
      arrival_numbers = exchange_token_numbers(request.token_numbers, route, scratch);
    kernels::arrival_order(counts_of_ranks, arrival_numbers,
                           {.first = sharing_.first_rank, .size = sharing_.num_ranks},
                           used(route.arrival_of_row, route.num_rows), route.padded_rows);
  }
  decide_way(route, scratch, capacity, has_units);
}

// With all_gather rows are found among the tokens before they are numbered by part.
void Dispatcher::decide_way(Route& route, DispatchScratch& scratch, RowCapacity& capacity,
                            bool has_units) const {
  if (delivery_ && !delivery_->is_hierarchical())
    route.travels_once = delivery_->route(route, *scratch.delivery, capacity, 0);
  if (moves_rows() && max_rows_ > 0) cut(route, scratch, has_units);
  if (delivery_ && delivery_->is_hierarchical() && !route.is_cut())
    route.travels_once = delivery_->route(route, *scratch.delivery, capacity, max_rows_);
  if (return_) return_->route(route);
}

void Dispatcher::exchange_by_place(const TensorView& own, const TensorView& received) const {
  const auto num_ranks = static_cast<std::size_t>(group_.size());
  std::vector<std::int64_t> told(num_ranks);
  const std::vector<std::int64_t> heard(num_ranks, num_local_places());
  for (int p = 0; p < group_.size(); ++p)
    told[static_cast<std::size_t>(p)] = placement_.num_places_of(p);
  const Profile::ControlScope control(own.device->profile());
  const std::int64_t n = own.numel() / placement_.num_places();
  group_.all_to_all_v(own.reshape({placement_.num_places(), n}), told,
                      received.reshape({group_.size() * num_local_places(), n}), heard);
}

// Each rank tells each other how many rows it has for each of that one's places: i32 [P, local].
TensorView Dispatcher::exchange_counts(DispatchScratch& scratch) const {
  if (!moves_rows()) return scratch.counts;
  const TensorView recv = used(scratch.recv_counts, group_.size() * num_local_places());
  exchange_by_place(scratch.counts, recv);
  return recv;
}

TensorView Dispatcher::sorted_by(const RouteRequest& request, DispatchScratch& scratch) const {
  if (!placement_.has_replicas()) return request.indices;
  const TensorView places = used(scratch.places, request.indices.rows());
  kernels::place_choices(request.indices,
                         {placement_.first_by_expert(), placement_.places_by_expert()},
                         request.sequence_ids, request.sequences_of_share, places);
  return places;
}

std::span<const std::int32_t> Dispatcher::place_of_sorted() const {
  if (placement_.is_in_order() || placement_.has_replicas()) return {};
  return placement_.place_of_expert();
}

void Dispatcher::find_units(const TensorView& indices, Route& route,
                            DispatchScratch& scratch) const {
  const RowUnits& units = scratch.units;
  kernels::count_by_unit(indices, place_of_sorted(), units.rows, scratch.unit_counts);
  TensorView counts = scratch.unit_counts;
  if (moves_rows()) {
    counts = used(scratch.recv_unit_counts, group_.size() * num_local_places() * units.per_rank);
    exchange_by_place(scratch.unit_counts, counts);
  }
  kernels::unit_offsets(counts.reshape({group_.size(), num_local_places(), units.per_rank}),
                        units.order, route.unit_offsets);
}

// The token numbers of the rows as they arrive: i32 [R, 1].
TensorView Dispatcher::exchange_token_numbers(const TensorView& token_numbers, const Route& route,
                                              DispatchScratch& scratch) const {
  expect(token_numbers.numel() == route.num_tokens, "one number for each token");
  const TensorView sent = used(scratch.slot_numbers, route.num_sent);
  const TensorView received = used(scratch.arrival_numbers, route.num_rows);
  kernels::gather_rows(token_numbers.reshape({route.num_tokens, 1}),
                       used(route.token_of_row, route.num_sent), sent);
  group_.all_to_all_v(sent, rows_to_ranks(route, placement_, {}).count, received,
                      rows_from_ranks(route, group_.size(), {}).count);
  return received;
}

// The one place where the host reads what a pass computes: the sizes of the exchanges to come.
void Dispatcher::read_counts(const DispatchScratch& scratch, const TensorView& recv_counts,
                             Route& route, RowCapacity& capacity) const {
  if (route.padded_rows > 0) {
    std::ranges::fill(route.place_counts, route.padded_rows);
    std::ranges::fill(route.recv_counts, route.padded_rows);
    // Of the fullest rank, as the ranks of a plan do not hear of each other.
    capacity.require(group_.size() * placement_.most_places() * route.padded_rows);
    return;
  }
  if (recv_counts.device->is_plan()) return assume_counts(route, capacity);
  const kernels::HostContents<std::int32_t> own(scratch.counts), received(recv_counts);
  std::ranges::copy(own.span(), route.place_counts.begin());
  std::ranges::copy(received.span(), route.recv_counts.begin());
}

// What a plan assumes in place of the counts that nobody can read: all experts equally loaded, the
// remainder on the first ones, by every rank alike. So it knows what the fullest rank receives.
void Dispatcher::assume_counts(Route& route, RowCapacity& capacity) const {
  const std::int64_t num_slots = route.num_tokens * top_k_;
  for (std::int64_t place = 0; place < placement_.num_places(); ++place)
    route.place_counts[static_cast<std::size_t>(place)] =
        placement_.balanced_rows(num_slots, place);
  const auto counts_of = [&](int rank) {
    return std::span(route.place_counts)
        .subspan(static_cast<std::size_t>(placement_.first_place(rank)),
                 static_cast<std::size_t>(placement_.num_places_of(rank)));
  };
  auto received = route.recv_counts.begin();
  for (int p = 0; p < group_.size(); ++p) {
    received = std::ranges::copy(counts_of(group_.rank()), received).out;
    capacity.require(group_.size() * sum_of(counts_of(p)));
  }
  if (capacity.is_planned()) fit_to_plan(route.recv_counts, capacity.rows());
}

// Balanced counts may exceed a planned capacity that a run measured, as experts that do not divide
// by the ranks load some ranks more than others. Takes rows of other ranks away until they fit.
void Dispatcher::fit_to_plan(std::span<std::int64_t> recv_counts, std::int64_t max_rows) const {
  std::int64_t excess = sum_of(recv_counts) - max_rows;
  const auto num_local = static_cast<std::size_t>(num_local_places());
  for (std::size_t i = 0; i < recv_counts.size() && excess > 0; ++i) {
    if (i / num_local == static_cast<std::size_t>(group_.rank())) continue;
    const std::int64_t taken = std::clamp<std::int64_t>(excess, 0, recv_counts[i]);
    recv_counts[i] -= taken;
    excess -= taken;
  }
  expect(excess <= 0, "at least as many planned rows as a rank sends to itself");
}

// What follows from the counts by place.
void Dispatcher::fill_sums(Route& route) const {
  route.num_sent = sum_of(route.place_counts);
  const auto num_local = static_cast<std::size_t>(num_local_places());
  std::vector<std::int64_t> rows_of_place(num_local);
  for (std::size_t i = 0; i < route.recv_counts.size(); ++i)
    rows_of_place[i % num_local] += route.recv_counts[i];
  std::inclusive_scan(rows_of_place.begin(), rows_of_place.end(), route.expert_offsets.begin() + 1);
  route.num_rows = route.expert_offsets.back();
}

}  // namespace switchyard
