#include "experts/route.hpp"

#include <numeric>
#include <span>

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

}  // namespace

void Route::for_each_tensor(const RecordVisitor& visit) {
  visit_tensor(visit, "offsets", offsets);
  if (!unit_offsets.empty()) visit_tensor(visit, "unit_offsets", unit_offsets);
  visit_tensor(visit, "row_of_slot", row_of_slot);
  visit_tensor(visit, "token_of_row", token_of_row);
  visit_rows(visit, "arrival_of_row", arrival_of_row, num_rows);
}

RowRanges rows_to_ranks(const RouteCounts& route, const Placement& placement, Piece piece) {
  RowRanges ranges;
  std::int64_t begin = 0;
  for (int p = 0; p < placement.num_ranks(); ++p) {
    const auto counts = std::span(route.place_counts)
                            .subspan(static_cast<std::size_t>(placement.first_place(p)),
                                     static_cast<std::size_t>(placement.num_places_of(p)));
    begin = append_run(begin, counts, piece, ranges);
  }
  return ranges;
}

RowRanges rows_from_ranks(const RouteCounts& route, int num_ranks, Piece piece) {
  RowRanges ranges;
  const auto num_local = static_cast<std::size_t>(num_local_places(route));
  std::int64_t begin = 0;
  for (int p = 0; p < num_ranks; ++p) {
    const auto counts =
        std::span(route.recv_counts).subspan(static_cast<std::size_t>(p) * num_local, num_local);
    begin = append_run(begin, counts, piece, ranges);
  }
  return ranges;
}

std::int64_t first_row_of(const RouteCounts& route, Piece piece) {
  return route.expert_offsets[static_cast<std::size_t>(piece.begin(num_local_places(route)))];
}

std::int64_t end_row_of(const RouteCounts& route, Piece piece) {
  return route.expert_offsets[static_cast<std::size_t>(piece.end(num_local_places(route)))];
}

}  // namespace switchyard
