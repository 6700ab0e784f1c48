#include "experts/dispatch/row_units.hpp"

#include <algorithm>
#include <numeric>
#include <tuple>

#include "tensor/error.hpp"

namespace switchyard {

namespace {

// Where a unit lies among the rows of an expert: by the ranks that share its sequence, then by its
// first token.
struct Place {
  int sharers;
  std::int64_t token;
  std::int32_t number;
  friend auto operator<=>(const Place&, const Place&) = default;
};

}  // namespace

RowUnits row_units_of(const Mesh& mesh, const SequenceSplit& split, std::int64_t num_sequences,
                      std::int64_t unit_rows) {
  RowUnits units{.rows = unit_rows, .per_rank = 0, .order = {}};
  if (unit_rows == 0) return units;
  const std::int64_t num_local = split.num_local(mesh.index(Axis::context));
  expect(num_sequences * num_local % unit_rows == 0, "a micro-batch of whole units");
  units.per_rank = num_sequences * num_local / unit_rows;
  const ContextSharing sharing = sharing_of(mesh);
  std::vector<Place> places;
  for (int rank = 0; rank < mesh.degree(Axis::expert); ++rank) {
    const int world_rank = sharing.first_rank + rank;
    std::int64_t row = 0;
    for (std::int64_t sequence = 0; sequence < num_sequences; ++sequence)
      for (const PositionRange& segment : split.segments(world_rank % sharing.num_ranks)) {
        // Of units that begin in this run of neighbouring tokens.
        const std::int64_t first = (row + unit_rows - 1) / unit_rows;
        for (std::int64_t unit = first; unit * unit_rows < row + segment.count; ++unit)
          places.push_back({world_rank / sharing.num_ranks,
                            sequence * split.length() + segment.begin + unit * unit_rows - row,
                            static_cast<std::int32_t>(rank * units.per_rank + unit)});
        row += segment.count;
      }
  }
  std::ranges::sort(places);
  for (const Place& place : places) units.order.push_back(place.number);
  expect(std::ssize(units.order) == units.per_rank * mesh.degree(Axis::expert),
         "as many units on every rank that shares experts");
  return units;
}

}  // namespace switchyard
