#include "kernels/cpu/linear.hpp"

#include "kernels/cpu/onednn.hpp"
#include "kernels/cpu/parallel.hpp"
#include "kernels/isa.hpp"

namespace switchyard::kernels::cpu {

DType operand_type(DType compute) {
  return compute == DType::bf16 && !has_bf16_products() ? DType::f32 : compute;
}

std::int64_t packed_weight_bytes(std::int64_t k, std::int64_t n, DType compute) {
  return packed_bytes(k, n, operand_type(compute));
}

void pack_weight(const TensorView& weight, DType compute, const TensorView& forward,
                 const TensorView& backward) {
  const std::int64_t out = weight.rows();
  const std::int64_t in = weight.cols();
  const DType operands = operand_type(compute);
  const auto write = [&](const TensorView& layout, std::int64_t k, std::int64_t n,
                         bool transposed) {
    pack(k, n, operands, weight.as<float>(), transposed, layout.kernel_bytes());
    if (operands == compute) return;
    float* values = reinterpret_cast<float*>(layout.kernel_bytes());
    const std::int64_t numel = layout.numel() / size_of(DType::f32);
    parallel_blocks(numel, block_elements, [values](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) values[i] = to_float(to_bf16(values[i]));
    });
  };
  write(forward, in, out, true);
  if (!backward.empty()) write(backward, out, in, false);
}

}  // namespace switchyard::kernels::cpu
