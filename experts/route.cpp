#include "experts/route.hpp"

#include <algorithm>
#include <numeric>

#include "tensor/error.hpp"

namespace switchyard {

namespace {

std::int64_t num_local_places(const RouteCounts& route) {
  return std::ssize(route.expert_offsets) - 1;
}

// Of rows sorted by place, from row `begin` on: appends the run that a piece has. Returns where the
// rows of all these places end.
std::int64_t append_run(std::int64_t begin, std::span<const std::int64_t> counts, Piece piece,
                        RowRanges& ranges) {
  const auto rows_of = [&](std::int64_t first, std::int64_t end) {
    return std::accumulate(counts.begin() + first, counts.begin() + end, std::int64_t{0});
  };
  const std::int64_t num_places = std::ssize(counts);
  const std::int64_t from = piece.begin(num_places), to = piece.end(num_places);
  ranges.first.push_back(begin + rows_of(0, from));
  ranges.count.push_back(rows_of(from, to));
  return begin + rows_of(0, num_places);
}

// Appends what [begin, end) has of [from, to), counted from `origin`.
void append_common(std::int64_t begin, std::int64_t end, std::int64_t from, std::int64_t to,
                   std::int64_t origin, RowRanges& runs) {
  const std::int64_t first = std::max(begin, from), last = std::min(end, to);
  if (first >= last) return;
  runs.first.push_back(first - origin);
  runs.count.push_back(last - first);
}

// Of a part: what rank p has between its cuts.
std::int64_t rows_of_part(std::span<const std::int64_t> cuts, const RowCuts& all, int rank,
                          int part) {
  const std::size_t at =
      static_cast<std::size_t>(rank) * all.rows.size() + static_cast<std::size_t>(part);
  return cuts[at + 1] - cuts[at];
}

}  // namespace

std::int64_t RouteCounts::rows_at_once() const {
  if (!is_cut()) return num_rows;
  std::int64_t most = 0;
  for (std::size_t part = 0; part + 1 < cuts.rows.size(); ++part)
    most = std::max(most, cuts.rows[part + 1] - cuts.rows[part]);
  return most;
}

void Route::for_each_tensor(const RecordVisitor& visit) {
  visit_tensor(visit, "offsets", offsets);
  if (!unit_offsets.empty()) visit_tensor(visit, "unit_offsets", unit_offsets);
  visit_tensor(visit, "row_of_slot", row_of_slot);
  visit_tensor(visit, "token_of_row", token_of_row);
  visit_rows(visit, "arrival_of_row", arrival_of_row, num_rows);
  visit_rows(visit, "delivered_row", delivered_row, num_rows);
  visit_tensor(visit, "leaving_token", leaving_token);
  visit_rows(visit, "forwarded_row", forwarded_row, delivery.num_forwarded);
  visit_rows(visit, "rows_of_delivered", rows_of_delivered, delivery.num_delivered);
  visit_rows(visit, "weights_of_delivered", weights_of_delivered, delivery.num_delivered);
  visit_rows(visit, "choice_of_arrival", choice_of_arrival, num_rows);
  visit_rows(visit, "copies_of_arriving", copies_of_arriving, delivery.num_arriving);
  visit_tensor(visit, "nodes_of_token", nodes_of_token);
}

RowRanges rows_to_ranks(const RouteCounts& route, const Placement& placement, Piece piece) {
  RowRanges ranges;
  std::int64_t begin = 0;
  for (int p = 0; p < placement.num_ranks(); ++p) {
    const auto counts = std::span(route.place_counts)
                            .subspan(static_cast<std::size_t>(placement.first_place(p)),
                                     static_cast<std::size_t>(placement.num_places_of(p)));
    if (route.is_cut()) {
      const RowCuts& cuts = route.cuts;
      const std::size_t at = static_cast<std::size_t>(p) * cuts.rows.size();
      ranges.first.push_back(begin + cuts.sent[at + static_cast<std::size_t>(piece.index)]);
      ranges.count.push_back(rows_of_part(cuts.sent, cuts, p, piece.index));
      begin += cuts.sent[at + cuts.rows.size() - 1];
    } else {
      begin = append_run(begin, counts, piece, ranges);
    }
  }
  return ranges;
}

RowRanges rows_from_ranks(const RouteCounts& route, int num_ranks, Piece piece) {
  RowRanges ranges;
  const auto num_local = static_cast<std::size_t>(num_local_places(route));
  std::int64_t begin = 0;
  for (int p = 0; p < num_ranks; ++p) {
    if (route.is_cut()) {
      ranges.first.push_back(begin);
      ranges.count.push_back(rows_of_part(route.cuts.received, route.cuts, p, piece.index));
      begin += ranges.count.back();
      continue;
    }
    const auto counts =
        std::span(route.recv_counts).subspan(static_cast<std::size_t>(p) * num_local, num_local);
    begin = append_run(begin, counts, piece, ranges);
  }
  return ranges;
}

RowRanges runs_to_ranks(const RouteCounts& route, const Placement& placement, Piece piece) {
  const RowRanges ranks = rows_to_ranks(route, placement, piece);
  RowRanges runs;
  std::int64_t row = 0;
  for (int p = 0; p < placement.num_ranks(); ++p) {
    const auto at = static_cast<std::size_t>(p);
    for (std::int64_t place = placement.first_place(p); place < placement.first_place(p + 1);
         ++place) {
      const std::int64_t end = row + route.place_counts[static_cast<std::size_t>(place)];
      append_common(row, end, ranks.first[at], ranks.first[at] + ranks.count[at], 0, runs);
      row = end;
    }
    runs.ends.push_back(runs.count.size());
  }
  return runs;
}

RowRanges runs_from_ranks(const RouteCounts& route, int num_ranks, Piece piece) {
  const std::int64_t num_local = num_local_places(route);
  const std::int64_t begin = first_row_of(route, piece), end = end_row_of(route, piece);
  RowRanges runs;
  std::vector<std::int64_t> row(route.expert_offsets.begin(), route.expert_offsets.end() - 1);
  for (std::int64_t i = 0; i < num_ranks * num_local; ++i) {
    std::int64_t& from = row[static_cast<std::size_t>(i % num_local)];
    const std::int64_t to = from + route.recv_counts[static_cast<std::size_t>(i)];
    append_common(from, to, begin, end, route.is_cut() ? begin : 0, runs);
    from = to;
    if (i % num_local == num_local - 1) runs.ends.push_back(runs.count.size());
  }
  runs.ends.resize(static_cast<std::size_t>(num_ranks), runs.count.size());
  return runs;
}

std::int64_t first_row_of(const RouteCounts& route, Piece piece) {
  if (route.is_cut()) return route.cuts.rows[static_cast<std::size_t>(piece.index)];
  return route.expert_offsets[static_cast<std::size_t>(piece.begin(num_local_places(route)))];
}

std::int64_t end_row_of(const RouteCounts& route, Piece piece) {
  if (route.is_cut()) return route.cuts.rows[static_cast<std::size_t>(piece.index) + 1];
  return route.expert_offsets[static_cast<std::size_t>(piece.end(num_local_places(route)))];
}

TensorView rows_of(const TensorView& buffer, const RouteCounts& route, Piece piece) {
  if (!route.is_cut() && piece.count == 1) return buffer;
  const std::int64_t begin = first_row_of(route, piece), end = end_row_of(route, piece);
  return route.is_cut() ? buffer.slice_rows(0, end - begin) : buffer.slice_rows(begin, end);
}

ExpertRange experts_of(const RouteCounts& route, Piece piece) {
  const std::int64_t num_places = num_local_places(route);
  if (!route.is_cut()) return {piece.begin(num_places), piece.end(num_places)};
  const std::int64_t begin = first_row_of(route, piece), end = end_row_of(route, piece);
  if (begin == end) return {};
  const std::vector<std::int64_t>& offsets = route.expert_offsets;
  return {std::ranges::upper_bound(offsets, begin) - offsets.begin() - 1,
          std::ranges::lower_bound(offsets, end) - offsets.begin()};
}

std::vector<std::int64_t> cut_rows(std::span<const std::int64_t> offsets, std::int64_t most_rows,
                                   std::int64_t step) {
  expect(step >= 1 && 2 * step <= most_rows, "parts that hold two steps");
  std::vector<std::int64_t> cuts{0};
  const std::int64_t num_rows = offsets.back();
  while (num_rows - cuts.back() > most_rows) {
    const std::int64_t end = cuts.back() + most_rows;
    const std::int64_t group = *(std::ranges::upper_bound(offsets, end) - 1);  // its first row
    cuts.push_back(group + (end - group) / step * step);
  }
  cuts.push_back(num_rows);
  return cuts;
}

}  // namespace switchyard
