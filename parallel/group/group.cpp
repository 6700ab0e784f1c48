#include "parallel/group/group.hpp"

#include <algorithm>
#include <numeric>

#include "tensor/error.hpp"

namespace switchyard {

namespace {

// Where each rank's rows begin if they follow each other and are all that `whole` has.
std::vector<std::int64_t> begins_of(std::span<const std::int64_t> counts, const TensorView& whole) {
  std::vector<std::int64_t> begins(counts.size());
  std::exclusive_scan(counts.begin(), counts.end(), begins.begin(), std::int64_t{0});
  expect((counts.empty() ? 0 : begins.back() + counts.back()) == whole.rows(),
         "row counts that add up to the rows of send and recv");
  return begins;
}

}  // namespace

std::int64_t RankRows::rows_of(std::size_t rank) const {
  const std::span<const std::int64_t> counts = counts_of(rank);
  return std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
}

Event Group::start_all_to_all_v(const TensorView& send, std::span<const std::int64_t> send_rows,
                                const TensorView& recv, std::span<const std::int64_t> recv_rows) {
  const std::vector<std::int64_t> to = begins_of(send_rows, send);
  const std::vector<std::int64_t> from = begins_of(recv_rows, recv);
  return start_all_to_all_v(send, {to, send_rows}, recv, {from, recv_rows});
}

Group::Place Group::place_in(const std::vector<std::vector<int>>& partition) const {
  std::vector<bool> listed(static_cast<std::size_t>(size_), false);
  Place place;
  for (std::size_t list = 0; list < partition.size(); ++list) {
    for (std::size_t index = 0; index < partition[list].size(); ++index) {
      const int rank = partition[list][index];
      expect(0 <= rank && rank < size_ && !listed[static_cast<std::size_t>(rank)],
             "a partition that lists each rank of the group once");
      listed[static_cast<std::size_t>(rank)] = true;
      if (rank == rank_)
        place = {static_cast<int>(list), static_cast<int>(index),
                 static_cast<int>(partition[list].size())};
    }
  }
  expect(std::all_of(listed.begin(), listed.end(), [](bool found) { return found; }),
         "a partition that lists each rank of the group once");
  return place;
}

}  // namespace switchyard
