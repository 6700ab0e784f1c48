// Rows in parts, where a rank of the group would hold too many at once.
#include <algorithm>

#include "experts/dispatch/dispatcher.hpp"
#include "kernels/host_copy.hpp"
#include "kernels/products/grouped_linear.hpp"

namespace switchyard {

namespace {

// Where the sums of a weight's gradient are cut anyway (kernels/products/grouped_linear.hpp).
std::int64_t step_of_cuts(bool has_units) {
  return has_units ? kernels::term_rows : kernels::gradient_chunk_rows;
}

// The rank whose rows begin at or before a row; `first` of each rank ascends.
std::size_t rank_of(std::span<const std::int64_t> first, std::int64_t row) {
  return static_cast<std::size_t>(std::ranges::upper_bound(first, row) - first.begin() - 1);
}

}  // namespace

void Dispatcher::cut(Route& route, DispatchScratch& scratch, bool has_units) const {
  RowCuts cuts;
  if (has_units && !route.unit_offsets->device->is_plan()) {
    const kernels::HostContents<std::int32_t> units(route.unit_offsets);
    const std::vector<std::int64_t> offsets(units.span().begin(), units.span().end());
    cuts.rows = cut_rows(offsets, max_rows_, step_of_cuts(true));
  } else {
    cuts.rows = cut_rows(route.expert_offsets, max_rows_, step_of_cuts(has_units));
  }
  const bool is_plan = route.offsets->device->is_plan();
  std::int64_t agreed = is_plan ? assumed_parts(route, has_units) : cuts.num_parts();
  group_.all_reduce_values(std::span(&agreed, 1), ReduceOp::max);
  if (agreed == 1) return;
  cuts.rows.resize(static_cast<std::size_t>(agreed) + 1, route.num_rows);
  count_received(route, cuts);
  tell_cuts(route, cuts, scratch);
  route.cuts = std::move(cuts);
  number_within_parts(route);
}

// Of a plan, in which every rank sends what this one does: the parts of the rank with the most.
std::int64_t Dispatcher::assumed_parts(const Route& route, bool has_units) const {
  std::int64_t most = 1, place = 0;
  for (int rank = 0; rank < group_.size(); ++rank) {
    std::vector<std::int64_t> offsets{0};
    for (; place < placement_.first_place(rank + 1); ++place)
      offsets.push_back(offsets.back() +
                        group_.size() * route.place_counts[static_cast<std::size_t>(place)]);
    most = std::max(most, std::ssize(cut_rows(offsets, max_rows_, step_of_cuts(has_units))) - 1);
  }
  return most;
}

// How many rows of each rank are before each cut.
void Dispatcher::count_received(const Route& route, RowCuts& cuts) const {
  const auto num_ranks = static_cast<std::size_t>(group_.size());
  const auto num_local = static_cast<std::size_t>(num_local_places());
  cuts.received.assign(num_ranks * cuts.rows.size(), 0);
  const auto before = [&](std::size_t rank, std::size_t part) -> std::int64_t& {
    return cuts.received[rank * cuts.rows.size() + part];
  };
  if (sharing_.num_ranks == 1 ||
      route.offsets->device->is_plan()) {  // by place, then by rank; a plan takes that for all
    for (std::size_t part = 1; part < cuts.rows.size(); ++part) {
      std::int64_t left = cuts.rows[part];
      for (std::size_t i = 0; i < num_local * num_ranks; ++i) {
        const std::size_t rank = i % num_ranks;
        const std::int64_t rows =
            std::min(left, route.recv_counts[rank * num_local + i / num_ranks]);
        before(rank, part) += rows;
        left -= rows;
      }
    }
    return;
  }
  const kernels::HostContents<std::int32_t> arrival(
      route.arrival_of_row->slice_rows(0, route.num_rows));
  const std::vector<std::int64_t> first = rows_from_ranks(route, group_.size(), {}).first;
  for (std::size_t part = 1; part < cuts.rows.size(); ++part) {
    for (std::size_t rank = 0; rank < num_ranks; ++rank)
      before(rank, part) = before(rank, part - 1);
    for (std::int64_t row = cuts.rows[part - 1]; row < cuts.rows[part]; ++row)
      ++before(rank_of(first, arrival.span()[static_cast<std::size_t>(row)]), part);
  }
}

// Each rank tells each other where it cuts the rows that come from there.
void Dispatcher::tell_cuts(const Route& route, RowCuts& cuts, DispatchScratch& scratch) const {
  const auto num_cuts = std::ssize(cuts.rows);
  const std::int64_t num_ranks = group_.size();
  const TensorView told = scratch.received_cuts->slice_rows(0, num_ranks * num_cuts);
  const TensorView heard = scratch.sent_cuts->slice_rows(0, num_ranks * num_cuts);
  kernels::write_from_host<std::int32_t>(told, [&](std::span<std::int32_t> written) {
    std::ranges::transform(cuts.received, written.begin(),
                           [](std::int64_t row) { return static_cast<std::int32_t>(row); });
  });
  const std::vector<std::int64_t> each(static_cast<std::size_t>(num_ranks), 1);
  {
    const Profile::ControlScope control(told.device->profile());
    group_.all_to_all_v(told.reshape({num_ranks, num_cuts}), each,
                        heard.reshape({num_ranks, num_cuts}), each);
  }
  if (told.device->is_plan()) return assume_sent(route, cuts);
  const kernels::HostContents<std::int32_t> sent(heard);
  cuts.sent.assign(sent.span().begin(), sent.span().end());
}

// Of a plan, which hears nothing: as many rows in each part.
void Dispatcher::assume_sent(const Route& route, RowCuts& cuts) const {
  cuts.sent.clear();
  for (const std::int64_t rows : rows_to_ranks(route, placement_, {}).count)
    for (int part = 0; part <= cuts.num_parts(); ++part)
      cuts.sent.push_back(rows * part / cuts.num_parts());
}

// Of a part all rows arrive as if there were no others.
void Dispatcher::number_within_parts(Route& route) const {
  if (arrives_in_order(route.padded_rows)) return;
  const RowCuts& cuts = route.cuts;
  std::vector<std::int64_t> first(1, 0);  // of the rows from each rank among all
  for (int p = 0; p + 1 < group_.size(); ++p)
    first.push_back(first.back() +
                    cuts.received[(static_cast<std::size_t>(p) + 1) * cuts.rows.size() - 1]);
  const TensorView arrival = route.arrival_of_row->slice_rows(0, route.num_rows);
  if (arrival.device->is_plan()) return;
  std::vector<std::int32_t> numbers(static_cast<std::size_t>(route.num_rows));
  kernels::copy_to_host<std::int32_t>(arrival, numbers);
  for (int part = 0; part < cuts.num_parts(); ++part) {
    const RowRanges from = rows_from_ranks(route, group_.size(), {part, cuts.num_parts()});
    for (std::int64_t row = cuts.rows[static_cast<std::size_t>(part)];
         row < cuts.rows[static_cast<std::size_t>(part) + 1]; ++row) {
      std::int32_t& number = numbers[static_cast<std::size_t>(row)];
      const std::size_t rank = rank_of(first, number);
      const std::int64_t before =
          cuts.received[rank * cuts.rows.size() + static_cast<std::size_t>(part)];
      number = static_cast<std::int32_t>(number - first[rank] - before + from.first[rank]);
    }
  }
  kernels::copy_from_host<std::int32_t>(numbers, arrival);
}

}  // namespace switchyard
