// Where the rows of choices go, if experts live at several places each (replicas,
// parallel/placement.hpp).
#pragma once

#include <cstdint>
#include <span>

#include "tensor/tensor.hpp"

namespace switchyard::kernels {

// The places of expert e: places[first[e]] ... places[first[e + 1] - 1], at least one; on the host.
struct ExpertPlaces {
  std::span<const std::int32_t> first;   // [E + 1]
  std::span<const std::int32_t> places;  // [places]
};

// A token's rows go, of the n places of each of its experts, to the one with the number
// (sequence / sequences_of_share) mod n, so that its identity alone decides; neighbouring sequences
// go together, as many as are asked for. indices: i32 [T, k], experts or -1; sequence_ids: i64 [S],
// of T / S tokens each; places: i32 [T, k], written, -1 for -1. Not on a card.
void place_choices(const TensorView& indices, const ExpertPlaces& of_experts,
                   const TensorView& sequence_ids, std::int64_t sequences_of_share,
                   const TensorView& places);

}  // namespace switchyard::kernels
