#include "kernels/cpu/products/linear.hpp"

#include "kernels/cpu/parallel.hpp"
#include "kernels/cpu/products/onednn.hpp"
#include "kernels/isa.hpp"

namespace switchyard::kernels::cpu {

DType operand_type(DType compute) {
  return compute == DType::bf16 && !has_bf16_products() ? DType::f32 : compute;
}

std::int64_t packed_weight_bytes(std::int64_t k, std::int64_t n, DType compute) {
  return packed_bytes(k, n, compute);
}

namespace {

// source: [k, n], or [n, k] if transposed.
void round_weight(const float* source, std::int64_t k, std::int64_t n, bool transposed,
                  BFloat16* to) {
  constexpr std::int64_t rows_of_piece = 16;  // a cache line of a transposed source
  parallel_blocks(k, rows_of_piece, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t col = 0; col < n; ++col)
      for (std::int64_t row = begin; row < end; ++row)
        to[row * n + col] = to_bf16(source[transposed ? col * k + row : row * n + col]);
  });
}

}  // namespace

void pack_weight(const TensorView& weight, DType compute, const TensorView& forward,
                 const TensorView& backward) {
  const std::int64_t out = weight.rows();
  const std::int64_t in = weight.cols();
  const bool is_packed = operand_type(compute) == compute;
  const auto write = [&](const TensorView& layout, std::int64_t k, std::int64_t n,
                         bool transposed) {
    std::byte* to = layout.kernel_bytes();
    if (is_packed)
      pack(k, n, compute, weight.as<float>(), transposed, to);
    else
      round_weight(weight.as<float>(), k, n, transposed, reinterpret_cast<BFloat16*>(to));
  };
  write(forward, in, out, true);
  if (!backward.empty()) write(backward, out, in, false);
}

}  // namespace switchyard::kernels::cpu
