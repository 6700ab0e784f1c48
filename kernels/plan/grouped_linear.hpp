// The products of kernels/products/grouped_linear.hpp on the plan device, which has no offsets to
// read: all rows are in use, and every group has as many.
#pragma once

#include <vector>

#include "kernels/products/grouped_linear.hpp"

namespace switchyard::kernels::plan {

std::vector<std::int64_t> even_offsets(std::int64_t num_groups, std::int64_t num_rows);
void grouped_linear_forward(const TensorView& x, std::span<const PackedWeight> weights,
                            const TensorView& y);
void grouped_linear_backward_input(const TensorView& dy, std::span<const PackedWeight> weights,
                                   const TensorView& dx, Accumulate accumulate);
void grouped_linear_backward_weight(const TensorView& dy, const TensorView& x,
                                    const TensorView& dw);

}  // namespace switchyard::kernels::plan
