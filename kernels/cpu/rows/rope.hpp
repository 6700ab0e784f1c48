// The CPU twin of kernels/rows/rope.hpp.
#pragma once

#include "kernels/rows/rope.hpp"

namespace switchyard::kernels::cpu {

void rope(const TensorView& x, const RopeTable& table, const TensorView& positions,
          std::int64_t head_dim, Rotation rotation);

}  // namespace switchyard::kernels::cpu
