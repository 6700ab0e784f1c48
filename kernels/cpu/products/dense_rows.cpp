#include "kernels/cpu/products/dense_rows.hpp"

#include <cstring>

namespace switchyard::kernels::cpu {

void load_rows(const TensorView& from, std::int64_t begin, std::int64_t rows, DType type,
               std::byte* buffer, std::int64_t stride) {
  const std::int64_t cols = from.cols();
  const std::int64_t row_elements = stride > 0 ? stride : cols;
  for (std::int64_t r = 0; r < rows; ++r) {
    std::byte* to = buffer + r * row_elements * size_of(type);
    const std::byte* row =
        from.kernel_bytes() + (begin + r) * from.row_stride * size_of(from.dtype);
    if (from.dtype == type) {
      std::memcpy(to, row, static_cast<std::size_t>(cols * size_of(type)));
    } else {  // bf16 to f32
      const auto* source = reinterpret_cast<const BFloat16*>(row);
      auto* target = reinterpret_cast<float*>(to);
      for (std::int64_t c = 0; c < cols; ++c) target[c] = to_float(source[c]);
    }
  }
}

void store_rows(const std::byte* buffer, DType type, const TensorView& to, std::int64_t begin,
                std::int64_t rows) {
  const std::int64_t cols = to.cols();
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::byte* from = buffer + r * cols * size_of(type);
    std::byte* row = to.kernel_bytes() + (begin + r) * to.row_stride * size_of(to.dtype);
    if (to.dtype == type) {
      std::memcpy(row, from, static_cast<std::size_t>(cols * size_of(type)));
    } else {  // f32 to bf16
      const auto* source = reinterpret_cast<const float*>(from);
      auto* target = reinterpret_cast<BFloat16*>(row);
      for (std::int64_t c = 0; c < cols; ++c) target[c] = to_bf16(source[c]);
    }
  }
}

}  // namespace switchyard::kernels::cpu
