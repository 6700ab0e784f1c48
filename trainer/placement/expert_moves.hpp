// What travels when experts change their places: which experts, and which elements of what the
// ranks of a mesh own of them (ZeRO parts of buckets, parallel/parameter.hpp).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "parallel/placement.hpp"

namespace switchyard {

// An expert that comes to a place, and one where it was. Ranks are those of the expert axis, places
// those of a rank.
struct ExpertMove {
  std::int64_t expert = 0;
  int from_rank = 0;
  std::int64_t from_place = 0;
  int to_rank = 0;
  std::int64_t to_place = 0;

  bool leaves_its_rank() const { return from_rank != to_rank; }
};

// In ascending order of the experts, then of the places that they come to; none for a place that
// keeps its expert. Both placements have the same experts, and ranks of as many places. Where an
// expert had replicas its own rank gives it, if it had one; else they give it in turn.
std::vector<ExpertMove> moves_between(const Placement& before, const Placement& after);

// Where a parameter of the experts lies in the bucket of each rank of the expert axis.
struct BucketPlace {
  std::int64_t begin = 0;  // of the parameter
  std::int64_t part = 0;   // elements that each of the replicas owns
};

// Neighbouring elements that pass from the part that one rank of the mesh owns to that of another,
// or of its own. `from` and `to` count in the bucket of their rank.
struct MovedRange {
  int from_rank = 0;
  std::int64_t from = 0;
  int to_rank = 0;
  std::int64_t to = 0;
  std::int64_t numel = 0;
};

// What of the moves passes between owners, in an order that all ranks agree on. expert_numel:
// elements of an expert. Rank (expert_data d, expert e) of the mesh is d * places.size() + e.
std::vector<MovedRange> moved_ranges(std::span<const ExpertMove> moves, std::int64_t expert_numel,
                                     std::span<const BucketPlace> places);

}  // namespace switchyard
