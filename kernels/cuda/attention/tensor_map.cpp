#include "kernels/cuda/attention/tensor_map.hpp"

#include <cuda_runtime.h>

#include "tensor/cuda/runtime.hpp"
#include "tensor/error.hpp"

namespace switchyard::kernels::cuda {

namespace {

// The driver's function, looked up so that the program starts without a driver.
struct Encoder {
  Encoder() {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult result{};
    switchyard::cuda::check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found,
                                                             12000, cudaEnableDefault, &result));
    expect(result == cudaDriverEntryPointSuccess, "cuTensorMapEncodeTiled");
    encode = reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(found);
  }
  decltype(&cuTensorMapEncodeTiled) encode = nullptr;
};

}  // namespace

bool can_map_heads(const TensorView& view, std::int64_t head_dim) {
  return view.dtype == DType::bf16 && !view.empty() && head_dim % 8 == 0 &&
         (view.rows() == 1 || view.row_stride % 8 == 0) &&
         reinterpret_cast<std::uintptr_t>(view.kernel_bytes()) % 16 == 0;
}

CUtensorMap head_map(const TensorView& view, std::int64_t num_sequences, std::int64_t length,
                     std::int64_t head_dim, int tile_rows) {
  const auto positive = [](std::int64_t value) { return static_cast<cuuint64_t>(value); };
  const std::int64_t row_bytes = (view.rows() == 1 ? view.cols() : view.row_stride) * 2;
  const cuuint64_t sizes[4] = {positive(head_dim), positive(view.cols() / head_dim),
                               positive(length), positive(num_sequences)};
  const cuuint64_t strides[3] = {positive(head_dim * 2), positive(row_bytes),
                                 positive(row_bytes * length)};  // bytes
  const cuuint32_t tile[4] = {64, 1, static_cast<cuuint32_t>(tile_rows), 1};
  const cuuint32_t steps[4] = {1, 1, 1, 1};
  CUtensorMap map;
  const Encoder& encoder = view.device->kernel_state<Encoder>();
  const CUresult result =
      encoder.encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 4, view.kernel_bytes(), sizes, strides,
                     tile, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                     CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  expect(result == CUDA_SUCCESS, "a matrix that the card's copy engine can read by heads");
  return map;
}

}  // namespace switchyard::kernels::cuda
