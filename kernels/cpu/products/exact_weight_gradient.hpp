// The weight gradients of kernels/products/linear.hpp and kernels/products/grouped_linear.hpp as
// sums without an order (kernels/gradient_sum.hpp), on the CPU. What the rows of a unit add follows
// from them and from the shape of dw alone: neither from the rows that come with them nor from
// threads.
#pragma once

#include <span>

#include "kernels/gradient_sum.hpp"

namespace switchyard::kernels::cpu {

// dw[g] += dy^T x. dw: i64 [groups, out, in]. segments: [n + 1], n a multiple of the groups: the
// rows [segments[i], segments[i + 1]) are of group i / (n / groups), and of one unit each.
void add_exact_weight_gradients(const TensorView& dy, const TensorView& x,
                                std::span<const std::int64_t> segments, std::int64_t num_groups,
                                const GradientSum& dw);

// What it takes of Device::kernel_scratch, for any sizes.
std::int64_t exact_weight_gradient_scratch(int num_threads);

}  // namespace switchyard::kernels::cpu
