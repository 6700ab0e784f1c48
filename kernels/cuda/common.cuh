// What the kernels of this folder share: from views to pointers and streams, element types, rows
// read in packets of 16 bytes, sums of a warp or a block in a fixed order.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "tensor/cuda/runtime.hpp"
#include "tensor/tensor.hpp"

namespace switchyard::kernels::cuda {

using switchyard::cuda::check;

inline cudaStream_t stream_of(const TensorView& view) {
  return switchyard::cuda::native(view.device->compute_stream());
}

// After a launch: reports what the launch itself was refused for.
inline void check_launch(CodeLocation where = CodeLocation::current()) {
  check(cudaGetLastError(), where);
}

// Element types of kernels -> those of tensors.
template <class T>
struct HostType {
  using type = T;
};
template <>
struct HostType<__nv_bfloat16> {
  using type = BFloat16;
};

// The view's first element, on the card. The element type must be T.
template <class T>
T* pointer(const TensorView& view) {
  return reinterpret_cast<T*>(view.as<typename HostType<T>::type>());
}

// call(T{}) with the type of f32 or bf16 elements.
template <class Call>
void with_float_type(DType dtype, Call call) {
  if (dtype == DType::f32)
    call(float{});
  else
    call(__nv_bfloat16{});
}

__device__ inline float to_float(float x) {
  return x;
}
__device__ inline float to_float(__nv_bfloat16 x) {
  return __bfloat162float(x);
}
template <class T>
__device__ T from_float(float x) {
  if constexpr (sizeof(T) == 4)
    return x;
  else
    return __float2bfloat16_rn(x);
}

// Elements that one access of 16 bytes moves.
template <class T>
inline constexpr int packet_size = 16 / static_cast<int>(sizeof(T));

template <class T>
struct alignas(16) Packet {
  T values[packet_size<T>];
};

// Whether rows of `view` can be read in whole packets: addresses and lengths are multiples of 16
// bytes.
inline bool has_packets(const TensorView& view) {
  const std::int64_t size = size_of(view.dtype);
  return view.cols() * size % 16 == 0 && (view.rows() <= 1 || view.row_stride * size % 16 == 0) &&
         reinterpret_cast<std::uintptr_t>(view.kernel_bytes()) % 16 == 0;
}

// Blocks that cover `count` things, `per_block` each; at most what a grid's first dimension takes.
inline unsigned num_blocks(std::int64_t count, std::int64_t per_block) {
  return static_cast<unsigned>((count + per_block - 1) / per_block);
}

// The sum over the 32 threads of a warp, in every thread, in an order that is always the same.
__device__ inline float warp_sum(float value) {
  for (int distance = 16; distance > 0; distance /= 2)
    value += __shfl_xor_sync(0xffffffffu, value, distance);
  return value;
}
__device__ inline double warp_sum(double value) {
  for (int distance = 16; distance > 0; distance /= 2)
    value += __shfl_xor_sync(0xffffffffu, value, distance);
  return value;
}
__device__ inline float warp_max(float value) {
  for (int distance = 16; distance > 0; distance /= 2)
    value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, distance));
  return value;
}

// The sum over a block of num_threads (a multiple of 32) threads, in every thread. All must call.
template <int num_threads, class T>
__device__ T block_sum(T value) {
  constexpr int num_warps = num_threads / 32;
  __shared__ T of_warp[num_warps];
  value = warp_sum(value);
  __syncthreads();  // the last call's reads
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
  __syncthreads();
  T sum = of_warp[0];
  for (int warp = 1; warp < num_warps; ++warp) sum += of_warp[warp];
  return sum;
}

}  // namespace switchyard::kernels::cuda
