// Rows under way: out of tokens, to the experts and back.
#include <algorithm>
#include <utility>

#include "experts/dispatch/dispatcher.hpp"
#include "kernels/routing/permute.hpp"
#include "tensor/error.hpp"

namespace switchyard {

namespace {

constexpr std::string_view one_piece = "all rows at once where none travels";

TensorView used(const Tensor& rows, std::int64_t num_rows) {
  return rows->slice_rows(0, num_rows);
}

// Calls visit(begin, end) for the rows of runs, and for runs that lie side by side once.
template <class Visit>
void for_each_stretch(const RowRanges& runs, const Visit& visit) {
  std::vector<std::pair<std::int64_t, std::int64_t>> ascending;
  for (std::size_t i = 0; i < runs.first.size(); ++i)
    if (runs.count[i] > 0) ascending.emplace_back(runs.first[i], runs.first[i] + runs.count[i]);
  std::ranges::sort(ascending);
  for (std::size_t i = 0; i < ascending.size();) {
    const std::int64_t begin = ascending[i].first;
    std::int64_t end = begin;
    while (i < ascending.size() && ascending[i].first == end) end = ascending[i++].second;
    visit(begin, end);
  }
}

void pack(const TensorView& rows, const RowRanges& runs, const WireRows& wire,
          const TensorView& packed) {
  for_each_stretch(runs, [&](std::int64_t begin, std::int64_t end) {
    kernels::pack_rows(rows.slice_rows(begin, end), wire.format, packed.slice_rows(begin, end));
  });
}

void unpack(const TensorView& packed, const RowRanges& runs, const WireRows& wire,
            const TensorView& rows) {
  for_each_stretch(runs, [&](std::int64_t begin, std::int64_t end) {
    kernels::unpack_rows(packed.slice_rows(begin, end), wire.format, rows.slice_rows(begin, end));
  });
}

RankRows by_rank(const RowRanges& ranges) {
  return {ranges.first, ranges.count, ranges.ends};
}

// Takes the runs of a rank out of all, which have ends.
RowRanges take_rank(RowRanges& runs, std::size_t rank) {
  const auto begin = static_cast<std::ptrdiff_t>(by_rank(runs).begin_of(rank)),
             end = static_cast<std::ptrdiff_t>(by_rank(runs).end_of(rank));
  RowRanges taken;
  for (const auto of : {&RowRanges::first, &RowRanges::count}) {
    std::vector<std::int64_t>& all = runs.*of;
    (taken.*of).assign(all.begin() + begin, all.begin() + end);
    all.erase(all.begin() + begin, all.begin() + end);
  }
  for (std::size_t p = rank; p < runs.ends.size(); ++p)
    runs.ends[p] -= static_cast<std::size_t>(end - begin);
  return taken;
}

// Where the rows of a piece arrived.
TensorView order_of(const Route& route, Piece piece) {
  return route.arrival_of_row->slice_rows(first_row_of(route, piece), end_row_of(route, piece));
}

}  // namespace

TensorView MovingRows::finish() {
  if (rows_.device != nullptr) event_.wait(rows_.device->compute_stream());
  if (arrive_) arrival_ = arrive_();
  if (!order_.empty()) kernels::gather_rows(arrival_, order_, rows_);
  return rows_;
}

MovingRows Dispatcher::start_dispatch(const TensorView& x, const Route& route,
                                      DispatchScratch& scratch, const TensorView& x_rows,
                                      Piece piece, bool again) const {
  const TensorView token_of_row = used(route.token_of_row, route.num_sent);
  if (!moves_rows()) {
    expect(piece.count == 1, one_piece);
    kernels::gather_rows(x, token_of_row, x_rows);
    return MovingRows(x_rows);
  }
  if (route.travels_once) return start_delivery(x, route, scratch, x_rows, piece);
  const TensorView slots = used(again ? scratch.sent_again : scratch.slots, route.num_sent);
  // A plan assumes of parts what is sent and what is received one by one.
  const bool knows_own = !x.device->is_plan() || !route.is_cut();
  if (arrives_in_order(route.padded_rows) && knows_own && !scratch.wire_out().is_used())
    return start_straight(x, token_of_row, slots, route, x_rows, piece);
  if (piece.count == 1) {
    kernels::gather_rows(x, token_of_row, slots);
  } else {
    const RowRanges to = rows_to_ranks(route, placement_, piece);
    for (std::size_t p = 0; p < to.first.size(); ++p) {
      const std::int64_t begin = to.first[p], end = begin + to.count[p];
      kernels::gather_rows(x, token_of_row.slice_rows(begin, end), slots.slice_rows(begin, end));
    }
  }
  return start_to_experts(slots, route, used(scratch.arrival, route.rows_at_once()), x_rows, piece,
                          scratch.wire_out());
}

// What stays on this rank goes to its place at once, while the other rows travel.
MovingRows Dispatcher::start_straight(const TensorView& x, const TensorView& token_of_row,
                                      const TensorView& slots, const Route& route,
                                      const TensorView& x_rows, Piece piece) const {
  RowRanges to = sent_by_rank(route, piece), from = received_by_rank(route, piece);
  const auto own = static_cast<std::size_t>(group_.rank());
  const RowRanges kept = take_rank(to, own), places = take_rank(from, own);
  for_each_stretch(to, [&](std::int64_t begin, std::int64_t end) {
    kernels::gather_rows(x, token_of_row.slice_rows(begin, end), slots.slice_rows(begin, end));
  });
  Event event = group_.start_all_to_all_v(slots, by_rank(to), x_rows, by_rank(from));
  expect(kept.count == places.count, "a place for each row that stays on its rank");
  for (std::size_t i = 0; i < kept.count.size(); ++i)
    kernels::gather_rows(x, token_of_row.slice_rows(kept.first[i], kept.first[i] + kept.count[i]),
                         x_rows.slice_rows(places.first[i], places.first[i] + places.count[i]));
  return MovingRows(rows_of(x_rows, route, piece), std::move(event));
}

MovingRows Dispatcher::start_delivery(const TensorView& x, const Route& route,
                                      DispatchScratch& scratch, const TensorView& x_rows,
                                      Piece piece) const {
  const TensorView order =
      route.delivered_row->slice_rows(first_row_of(route, piece), end_row_of(route, piece));
  DeliveryScratch& delivery = *scratch.delivery;
  const bool is_first = piece.index == 0;
  MovingRows moving(rows_of(x_rows, route, piece),
                    is_first ? delivery_->start(x, route, delivery) : Event(),
                    delivery.tokens(route.delivery.num_delivered), order);
  if (is_first)
    moving.arrive_ = [this, &route, &delivery] { return delivery_->arrive(route, delivery); };
  return moving;
}

TensorView Dispatcher::deliver(const TensorView& x, const Route& route, DispatchScratch& scratch,
                               const std::function<void()>& meanwhile) const {
  expect(route.travels_once, "a route of tokens that travel once");
  Event event = delivery_->start(x, route, *scratch.delivery);
  meanwhile();
  event.wait(x.device->compute_stream());
  return delivery_->arrive(route, *scratch.delivery);
}

RowRanges Dispatcher::sent_by_rank(const Route& route, Piece piece) const {
  return arrives_in_order(route.padded_rows) ? runs_to_ranks(route, placement_, piece)
                                             : rows_to_ranks(route, placement_, piece);
}

RowRanges Dispatcher::received_by_rank(const Route& route, Piece piece) const {
  return arrives_in_order(route.padded_rows) ? runs_from_ranks(route, group_.size(), piece)
                                             : rows_from_ranks(route, group_.size(), piece);
}

MovingRows Dispatcher::start_to_experts(const TensorView& slots, const Route& route,
                                        const TensorView& spare, const TensorView& rows,
                                        Piece piece, const WireRows& wire) const {
  if (!moves_rows()) {
    expect(piece.count == 1, one_piece);
    return MovingRows(slots);
  }
  const TensorView arrival = arrives_in_order(route.padded_rows) ? rows : spare;
  const RowRanges to = sent_by_rank(route, piece), from = received_by_rank(route, piece);
  if (wire.is_used()) pack(slots, to, wire, wire.slots);
  Event event = group_.start_all_to_all_v(wire.is_used() ? wire.slots : slots, by_rank(to),
                                          wire.is_used() ? wire.rows : arrival, by_rank(from));
  const TensorView taken = rows_of(rows, route, piece);
  MovingRows moving = arrives_in_order(route.padded_rows)
                          ? MovingRows(taken, std::move(event))
                          : MovingRows(taken, std::move(event), arrival, order_of(route, piece));
  if (wire.is_used())
    moving.arrive_ = [=] {
      unpack(wire.rows, from, wire, arrival);
      return arrival;
    };
  return moving;
}

MovingRows Dispatcher::start_from_experts(const TensorView& rows, const Route& route,
                                          const TensorView& spare, const TensorView& slots,
                                          Piece piece, const WireRows& wire) const {
  if (!moves_rows()) return MovingRows(rows);
  const TensorView arrival = arrives_in_order(route.padded_rows) ? rows : spare;
  if (!arrives_in_order(route.padded_rows))
    kernels::scatter_rows(rows_of(rows, route, piece), order_of(route, piece), arrival);
  const RowRanges to = received_by_rank(route, piece), from = sent_by_rank(route, piece);
  if (wire.is_used()) pack(arrival, to, wire, wire.rows);
  MovingRows moving(slots,
                    group_.start_all_to_all_v(wire.is_used() ? wire.rows : arrival, by_rank(to),
                                              wire.is_used() ? wire.slots : slots, by_rank(from)));
  if (wire.is_used())
    moving.arrive_ = [=] {
      unpack(wire.slots, from, wire, slots);
      return slots;
    };
  return moving;
}

}  // namespace switchyard
