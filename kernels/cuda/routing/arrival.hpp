// The CUDA twin of kernels/routing/arrival.hpp.
#pragma once

#include "kernels/routing/arrival.hpp"

namespace switchyard::kernels::cuda {

void arrival_order(const TensorView& counts, const TensorView& numbers,
                   const SharingSources& sharing, const TensorView& arrival_of_row);

}  // namespace switchyard::kernels::cuda
