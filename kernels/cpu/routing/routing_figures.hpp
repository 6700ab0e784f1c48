// The CPU twins of kernels/routing/routing_figures.hpp.
#pragma once

#include "kernels/routing/routing_figures.hpp"

namespace switchyard::kernels::cpu {

void add_entropy(const TensorView& shares, const TensorView& into);
void add_marked(const TensorView& counts, const TensorView& marks, const TensorView& into);

}  // namespace switchyard::kernels::cpu
