// The thin layer over oneDNN, and the only place that includes its headers: products of row-major
// matrices and packing of weights. Primitives are made on first use and kept by the thread that
// made them (oneDNN shares their code between threads behind that), so calls need no lock. Every
// product runs on the calling thread alone: who has several threads splits the work before calling,
// and a result then never depends on how many there are.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/dtype.hpp"

namespace switchyard::kernels::cpu {

// c[m, n] = a[m, k] b[k, n], or c += a b; sums in fp32. A leading dim is the distance in elements
// between rows as stored; a transposed operand is stored as [k, m] or [n, k].
struct Product {
  std::int64_t m = 0;
  std::int64_t n = 0;
  std::int64_t k = 0;
  DType operands = DType::f32;  // a and b: f32, or bf16 where has_bf16_products()
  DType result = DType::f32;
  std::int64_t lda = 0;
  std::int64_t ldb = 0;  // unused for a packed b
  std::int64_t ldc = 0;
  bool a_transposed = false;
  bool b_transposed = false;
  bool b_packed = false;  // b comes from pack()
  bool accumulate = false;

  friend bool operator==(const Product&, const Product&) = default;
};
// scratchpad: scratchpad_bytes for oneDNN to work in, 64-byte aligned and of no other thread's
// product. What more it should want, it allocates itself.
inline constexpr std::int64_t scratchpad_bytes = 512 * 1024;
void multiply(const Product& product, const std::byte* a, const std::byte* b, std::byte* c,
              std::byte* scratchpad);

// Room for the form of a [k, n] that oneDNN prefers as a second operand. It is the same on every
// processor, so that a plan knows it: whole blocks of 64 columns and of 64 bytes of a column, as
// its blocked forms have. Where oneDNN would take more, the form is row-major.
std::int64_t packed_bytes(std::int64_t k, std::int64_t n, DType operands);
// source: f32 [k, n] contiguous, or [n, k] if transposed. Rounds to nearest even. Uses all threads.
void pack(std::int64_t k, std::int64_t n, DType operands, const float* source, bool transposed,
          std::byte* packed);

}  // namespace switchyard::kernels::cpu
