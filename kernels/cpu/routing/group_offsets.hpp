// The kernel of kernels/routing/group_offsets.hpp on the CPU.
#pragma once

#include <span>

#include "tensor/tensor.hpp"

namespace switchyard::kernels::cpu {

void group_offsets(const TensorView& counts, const TensorView& offsets);

void count_by_unit(const TensorView& indices, std::span<const std::int32_t> place_of_expert,
                   std::int64_t unit_rows, const TensorView& counts);
void unit_offsets(const TensorView& counts, std::span<const std::int32_t> order,
                  const TensorView& offsets);

}  // namespace switchyard::kernels::cpu
