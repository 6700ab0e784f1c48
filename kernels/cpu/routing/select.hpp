// The CPU twin of kernels/routing/select.hpp.
#pragma once

#include "kernels/routing/select.hpp"

namespace switchyard::kernels::cpu {

void select_top_k(const TensorView& scores, const TensorView& indices, const Selection& selection);

}  // namespace switchyard::kernels::cpu
