// What the Hopper kernels of attention share: a producer warpgroup and two that compute, the tiles
// in shared memory, and how a thread's sums lie.
//
// Sums of 64 x N of a warpgroup: thread (warp w, lane l) has the rows 16 w + l / 4 and 8 more, and
// of every 8 columns two from 2 (l % 4) on. Sum i is of row i / 2 % 2 and column 8 (i / 4) +
// 2 (l % 4) + i % 2.
#pragma once

#include "kernels/cuda/attention/attention_products.cuh"
#include "kernels/cuda/attention/attention_tiles.cuh"
#include "kernels/cuda/attention/tensor_map.hpp"

namespace switchyard::kernels::cuda::hopper {

inline constexpr int panel_cols = 64;
inline constexpr int row_bytes = 128;  // of a panel
inline constexpr int warpgroup = 128;
inline constexpr int computing = 2;                          // warpgroups
inline constexpr int threads = (1 + computing) * warpgroup;  // the first one brings tiles
inline constexpr int rows_of_group = 64;                     // of a tile, for a computing warpgroup
inline constexpr int computing_warps = computing * warpgroup / 32;
// Registers of a thread of either kind: together what the block was started with, 168 for each.
inline constexpr int producer_registers = 40;
inline constexpr int computing_registers = 232;
static_assert(producer_registers + computing * computing_registers <= (1 + computing) * 168);

// A thread's place among its warpgroup's sums.
struct Place {
  int row = 0;  // the first of its two, 8 apart
  int col = 0;  // the first of its two of every 8
};
__device__ inline Place place() {
  const auto lane = static_cast<int>(threadIdx.x % 32);
  const auto warp = static_cast<int>(threadIdx.x % warpgroup / 32);
  return {16 * warp + lane / 4, 2 * (lane % 4)};
}

// Which stage of a ring, and in which round.
template <int stages>
struct Turn {
  int stage = 0;
  int parity = 0;
  __device__ void advance() {
    if (++stage < stages) return;
    stage = 0;
    parity ^= 1;
  }
};

// Sums of 16 columns as a product's operand with those columns along k.
template <int n>
__device__ void pack(std::uint32_t (&to)[4], const float (&sums)[n], int columns_16) {
#pragma unroll
  for (int i = 0; i < 4; ++i)
    to[i] = packed(sums[8 * columns_16 + 2 * i], sums[8 * columns_16 + 2 * i + 1]);
}

// Copies head_dim columns of `rows` rows, panel after panel. One thread calls.
template <int head_dim, int rows>
__device__ void copy_tile(std::byte* to, const CUtensorMap& map, std::uint64_t* barrier,
                          std::int32_t head, std::int32_t row, std::int64_t sequence) {
#pragma unroll
  for (int panel = 0; panel < head_dim / panel_cols; ++panel)
    load_panel(to + panel * rows * row_bytes, &map, panel * panel_cols, head, row,
               static_cast<int>(sequence), barrier);
}

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

// sums = a b^T over head_dim. a: 64 rows from row a_row on of a tile of a_rows rows; b: a tile of
// as many rows as sums have columns. One batch, not waited for.
template <int head_dim, int a_rows, int n>
__device__ void multiply_heads(float (&sums)[n], const std::byte* a, int a_row,
                               const std::byte* b) {
  constexpr int b_rows = 2 * n;
  const std::uint64_t left = descriptor(a + a_row * row_bytes, 0, 8 * row_bytes);
  const std::uint64_t right = descriptor(b, 0, 8 * row_bytes);
#pragma unroll
  for (int k = 0; k < head_dim / 16; ++k) {
    const int within = k % 4 * 32;
    multiply_add<0>(sums, advanced(left, k / 4 * a_rows * row_bytes + within),
                    advanced(right, k / 4 * b_rows * row_bytes + within), k > 0);
  }
}

// sums += weights b, for 16 * num_steps rows of b, a tile of as many rows.
template <int num_steps, int n>
__device__ void multiply_weights(float (&sums)[n], const std::uint32_t (&weights)[num_steps][4],
                                 const std::byte* b) {
  const std::uint64_t right = descriptor(b, 16 * num_steps * row_bytes, 8 * row_bytes);
#pragma unroll
  for (int k = 0; k < num_steps; ++k)
    multiply_add<1>(sums, weights[k], advanced(right, k * 16 * row_bytes), 1);
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

// Two neighbouring elements.
__device__ inline void store_pair(__nv_bfloat16* to, float a, float b) {
  *reinterpret_cast<std::uint32_t*>(to) = packed(a, b);
}
__device__ inline void store_pair(float* to, float a, float b) {
  *reinterpret_cast<float2*>(to) = make_float2(a, b);
}
__device__ inline float2 load_pair(const __nv_bfloat16* from) {
  return __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(from));
}
__device__ inline float2 load_pair(const float* from) {
  return *reinterpret_cast<const float2*>(from);
}

// A gradient's head vectors, as the tensor's type, written or added to what is there.
struct GradientRows {
  void* data = nullptr;
  std::int64_t stride = 0;  // elements
  bool is_f32 = false;
  bool adds = false;
};
inline GradientRows gradient_rows(const TensorView& view, Merge merge) {
  return {view.kernel_bytes(), view.row_stride, view.dtype == DType::f32,
          merge == Merge::with_before};
}

// This thread's sums of two rows, times `factor`: row + first_row and 8 more, of those below
// num_rows; of the head's columns those below head_dim.
template <int n>
__device__ void write_gradients(const GradientRows& to, std::int64_t row, std::int32_t first_row,
                                std::int32_t num_rows, std::int32_t head, std::int32_t head_dim,
                                float factor, const float (&sums)[n]) {
  const int col = place().col;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    if (first_row + 8 * r >= num_rows) continue;
    const std::int64_t begin =
        (row + first_row + 8 * r) * to.stride + std::int64_t{head} * head_dim + col;
#pragma unroll
    for (int j = 0; j < n / 4; ++j) {
      if (8 * j >= head_dim) break;  // a multiple of 8
      float a = factor * sums[4 * j + 2 * r], b = factor * sums[4 * j + 2 * r + 1];
      if (to.is_f32) {
        float* target = static_cast<float*>(to.data) + begin + 8 * j;
        if (to.adds) {
          const float2 there = load_pair(target);
          a += there.x;
          b += there.y;
        }
        store_pair(target, a, b);
      } else {
        store_pair(static_cast<__nv_bfloat16*>(to.data) + begin + 8 * j, a, b);
      }
    }
  }
}

// A warp has read a stage.
__device__ inline void give_back(std::uint64_t* empty) {
  if (threadIdx.x % 32 == 0) arrive(empty);
}

// The dynamic part of shared memory from its first multiple of 1,024 bytes on.
template <class Shared>
__device__ Shared& shared_of(std::byte* dynamic) {
  const std::uint32_t begin = shared_address(dynamic);
  return *reinterpret_cast<Shared*>(dynamic + ((begin + 1023) / 1024 * 1024 - begin));
}
template <class Shared>
inline constexpr int shared_bytes = static_cast<int>(sizeof(Shared)) + 1024;

}  // namespace switchyard::kernels::cuda::hopper
