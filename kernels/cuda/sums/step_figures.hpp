// The CUDA twins of kernels/sums/step_figures.hpp.
#pragma once

#include "kernels/sums/step_figures.hpp"

namespace switchyard::kernels::cuda {

void write_figures(std::span<const double> values, const TensorView& to);
void combine_figures(const TensorView& by_rank, std::int64_t num_sums, const TensorView& combined);
void decide_update(const TensorView& figures, const UpdateRule& rule, const TensorView& outcome,
                   const TensorView& decision);

}  // namespace switchyard::kernels::cuda
