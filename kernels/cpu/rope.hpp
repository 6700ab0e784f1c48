// The CPU twins of kernels/rope.hpp.
#pragma once

#include "kernels/rope.hpp"

namespace switchyard::kernels::cpu {

void fill_rope_table(const TensorView& cos, const TensorView& sin, std::int64_t head_dim,
                     double base);
void rope(const TensorView& x, const RopeTable& table, std::int64_t head_dim,
          std::int64_t sequence_length, std::int64_t first_position, Rotation rotation);

}  // namespace switchyard::kernels::cpu
