// Dense products by cuBLASLt. The library is 540 MB and costs a start of the program a tenth of a
// second where it is linked, so it is loaded when the first product runs.
//
// An algorithm is asked for once for each shape. It may take product_workspace_bytes and no more,
// and may split a sum only into parts that are added in a fixed order in fp32, so that a product of
// one shape has the same bits in every run.
#pragma once

#include <cublasLt.h>

#include <compare>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>

#include "tensor/dtype.hpp"

namespace switchyard::kernels::cuda {

// d [m, n] (+)= a [m, k] b [k, n], all column by column as BLAS has them: element (row, col) of a
// matrix at row + col * stride, of a transposed one at col + row * stride.
struct DenseProduct {
  struct Matrix {
    std::byte* data = nullptr;
    std::int64_t stride = 0;  // elements
    bool is_transposed = false;
  };
  std::int64_t m = 0;
  std::int64_t n = 0;
  std::int64_t k = 0;
  DType compute = DType::f32;  // of a and b
  DType result = DType::f32;
  Matrix a;
  Matrix b;
  Matrix d;  // not transposed
  bool accumulates = false;
};

// One for each device (Device::kernel_state), on the thread's current card.
class CublasLt {
 public:
  // ConfigError with the remedy where the library cannot be loaded.
  CublasLt();
  ~CublasLt();
  CublasLt(const CublasLt&) = delete;
  CublasLt& operator=(const CublasLt&) = delete;

  // workspace: product_workspace_bytes. Whether the library can do it; if not, nothing was done.
  bool multiply(const DenseProduct& product, std::byte* workspace, cudaStream_t stream);

 private:
  struct Library;
  struct Algorithm;
  // All that an algorithm depends on.
  struct Shape {
    std::int64_t m, n, k;
    std::int64_t strides[3];
    std::int64_t alignments[3];  // of the addresses, bytes
    bool is_transposed[2];
    DType compute, result;
    bool accumulates;
    auto operator<=>(const Shape&) const = default;
  };

  static Shape shape_of(const DenseProduct& product);
  std::unique_ptr<Algorithm> choose(const Shape& shape) const;

  std::unique_ptr<const Library> library_;
  cublasLtHandle_t handle_ = nullptr;
  std::map<Shape, std::unique_ptr<Algorithm>> algorithms_;
};

}  // namespace switchyard::kernels::cuda
