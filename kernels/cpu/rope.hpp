// The CPU twin of kernels/rope.hpp.
#pragma once

#include "kernels/rope.hpp"

namespace switchyard::kernels::cpu {

void rope(const TensorView& x, const RopeTable& table, const TensorView& positions,
          std::int64_t head_dim, Rotation rotation);

}  // namespace switchyard::kernels::cpu
