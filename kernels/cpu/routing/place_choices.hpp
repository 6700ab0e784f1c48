// The CPU twin of kernels/routing/place_choices.hpp. Experts outside their range throw
// InternalError.
#pragma once

#include "kernels/routing/place_choices.hpp"

namespace switchyard::kernels::cpu {

void place_choices(const TensorView& indices, const ExpertPlaces& of_experts,
                   const TensorView& sequence_ids, std::int64_t sequences_of_share,
                   const TensorView& places);

}  // namespace switchyard::kernels::cpu
