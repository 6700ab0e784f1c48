// Rows between a strided view and a buffer, which may have another float type.
#pragma once

#include "tensor/tensor.hpp"

namespace switchyard::kernels::cpu {

// stride: of the buffer's rows, in elements; 0: dense.
void load_rows(const TensorView& from, std::int64_t begin, std::int64_t rows, DType type,
               std::byte* buffer, std::int64_t stride = 0);
// From a dense buffer.
void store_rows(const std::byte* buffer, DType type, const TensorView& to, std::int64_t begin,
                std::int64_t rows);

}  // namespace switchyard::kernels::cpu
