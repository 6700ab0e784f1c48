// Figures of what a router does, for people to look at: counted in integers, so that they are the
// same bits however tokens are cut. Legend: T tokens, E experts.
#pragma once

#include "tensor/tensor.hpp"

namespace switchyard::kernels {

// Of a sum of entropies.
inline constexpr double entropy_unit = 1.0 / (std::int64_t{1} << 20);

// into[0] += the sum over tokens of the entropy of their shares, - sum over e of p_e ln p_e in
// nats, each rounded to a whole number of entropy_unit. A token whose shares are not all finite
// counts 0. shares: f32 [T, E], rows sum to 1; into: i64 [1].
void add_entropy(const TensorView& shares, const TensorView& into);

// into[0] += the sum of the counts that are marked (not 0). counts, marks: i32 [n]; into: i64 [1].
void add_marked(const TensorView& counts, const TensorView& marks, const TensorView& into);

}  // namespace switchyard::kernels
