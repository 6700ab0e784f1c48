#include "parallel/group/group.hpp"

#include <algorithm>

#include "tensor/error.hpp"

namespace switchyard {

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
