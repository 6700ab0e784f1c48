// The CPU twin of dropout in kernels/rows/elementwise.hpp.
#pragma once

#include "kernels/rows/elementwise.hpp"

namespace switchyard::kernels::cpu {

void dropout(const TensorView& x, float rate, const DropoutSite& site,
             const TensorView& sequence_ids);

}  // namespace switchyard::kernels::cpu
