// Memory of products on a card. Plain arithmetic, in every build, so that a plan for a card can be
// made without one.
#pragma once

#include <cstdint>

#include "tensor/dtype.hpp"

namespace switchyard::kernels::cuda {

// A packed weight is W itself, [out, in] in the compute type: cuBLASLt and our own kernels read
// either operand by rows or by columns, so both products take the one layout.
inline std::int64_t packed_weight_bytes(std::int64_t out_features, std::int64_t in_features,
                                        DType compute) {
  return out_features * in_features * size_of(compute);
}

// What cuBLASLt may take of Device::kernel_scratch. An algorithm that wants more is not used.
inline constexpr std::int64_t product_workspace_bytes = std::int64_t{32} << 20;

}  // namespace switchyard::kernels::cuda
