// The CPU twins of kernels/rope.hpp.
#pragma once

#include <vector>

#include "kernels/rope.hpp"

namespace switchyard::kernels::cpu {

// turns: f32 [n, 2, D / 2]; row p: magnitude * cos, then sin, of p * step * frequencies[i].
void fill_turns(const TensorView& turns, const std::vector<double>& frequencies, double step,
                double magnitude);
void rope(const TensorView& x, const RopeTable& table, const TensorView& positions,
          std::int64_t head_dim, Rotation rotation);

}  // namespace switchyard::kernels::cpu
