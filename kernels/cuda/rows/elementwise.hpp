// The CUDA twins of kernels/rows/elementwise.hpp.
#pragma once

#include "kernels/rows/elementwise.hpp"

namespace switchyard::kernels::cuda {

void fill_zero(const TensorView& x);
void iota(const TensorView& x);
void copy(const TensorView& src, const TensorView& dst);
void add(const TensorView& a, const TensorView& b, const TensorView& out);
void scale(const TensorView& x, float factor);
void dropout(const TensorView& x, float rate, const DropoutSite& site,
             const TensorView& sequence_ids);

}  // namespace switchyard::kernels::cuda
