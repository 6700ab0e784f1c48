// What the kernel of wgmma_product.cu does with one tile: brings its operands to shared memory, 64
// of k at a time, multiplies them and writes the sums.
#pragma once

#include <type_traits>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/products/group_tiles.cuh"
#include "kernels/cuda/products/hopper.cuh"

namespace switchyard::kernels::cuda::wgmma {

constexpr int tile_m = 128, tile_n = 256, tile_k = 64;
constexpr int num_places = 4;
constexpr int threads = 3 * 128, multiplying_threads = 2 * 128;
constexpr int row_bytes = tile_k * 2;        // of a tile in shared memory; 64 elements of bf16
constexpr int panel_bytes = 64 * row_bytes;  // 64 rows
constexpr int place_bytes = (tile_m + tile_n) / 64 * panel_bytes;
constexpr int staging_rows = 16, staging_bytes = staging_rows * 128;  // of a warp
constexpr int shared_bytes =
    num_places * place_bytes + multiplying_threads / 32 * staging_bytes + 1024;  // to align

struct Operands {
  CUtensorMap rows;
  CUtensorMap other_rows;                     // of a weight gradient
  CUtensorMap weights[max_groups_of_launch];  // of the others
  void* result;
  std::int64_t result_stride;  // elements
  GroupRows groups;
  int extent_m, extent_n, extent_k;  // of a group; the groups' rows take the place of one
};

// Where a block is in its round through the places.
struct Turn {
  int place = 0;
  std::uint32_t parity = 0;
  __device__ void advance() {
    if (++place == num_places) {
      place = 0;
      parity ^= 1;
    }
  }
};

// Panels of 64 rows of 128 bytes: tile_m / 64 of the first operand, then tile_n / 64 of the second.
template <ProductKind kind>
__device__ void load_place(const Operands& p, const GroupTile& at, int k, std::byte* place,
                           std::uint64_t* barrier) {
  std::byte* second = place + tile_m / 64 * panel_bytes;
  if constexpr (kind == ProductKind::backward_weight) {  // rows are k
    for (int i = 0; i < tile_m / 64; ++i)
      load_box(place + i * panel_bytes, &p.rows, at.m + 64 * i, at.begin + k, barrier);
    for (int i = 0; i < tile_n / 64; ++i)
      load_box(second + i * panel_bytes, &p.other_rows, at.n + 64 * i, at.begin + k, barrier);
  } else {
    load_box(place, &p.rows, k, at.begin + at.m, barrier);
    const CUtensorMap* weight = &p.weights[at.group];
    if constexpr (kind == ProductKind::forward)
      load_box(second, weight, k, at.n, barrier);
    else
      for (int i = 0; i < tile_n / 64; ++i)
        load_box(second + i * panel_bytes, weight, at.n + 64 * i, k, barrier);
  }
}

// Sets the rows of all panels from `first` on to zero. Both groups of multiplying warps call it.
__device__ void clear_rows(std::byte* place, int first, int thread) {
  const int pieces = (64 - first) * (row_bytes / 16);  // of a panel
  for (int panel = 0; panel < place_bytes / panel_bytes; ++panel)
    for (int i = thread; i < pieces; i += multiplying_threads)
      *reinterpret_cast<float4*>(place + panel * panel_bytes + first * row_bytes + i * 16) =
          make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  publish_to_async();
  asm volatile("bar.sync 1, %0;" ::"n"(multiplying_threads) : "memory");
}

// The 64 x 256 sums of one group of warps over one place, added to those before if `adds`.
template <ProductKind kind>
__device__ void multiply_place(float (&sums)[128], const std::byte* place, int half, bool adds) {
  constexpr bool a_by_columns = kind == ProductKind::backward_weight;
  constexpr bool b_by_columns = kind != ProductKind::forward;
  const std::uint64_t a = descriptor(place + half * panel_bytes, panel_bytes, 8 * row_bytes);
  const std::uint64_t b = descriptor(place + tile_m / 64 * panel_bytes, panel_bytes, 8 * row_bytes);
  // 16 of k: 32 bytes along a row, or 16 rows.
  constexpr int a_step = a_by_columns ? 16 * row_bytes : 32;
  constexpr int b_step = b_by_columns ? 16 * row_bytes : 32;
  begin_products();
#pragma unroll
  for (int i = 0; i < tile_k / 16; ++i)
    multiply_64_256_16<a_by_columns, b_by_columns>(sums, advanced(a, i * a_step),
                                                   advanced(b, i * b_step), adds || i > 0);
  commit_products();
}

// Writes a warp's 16 x 256 sums, through shared memory so that neighbouring threads write
// neighbouring addresses. `rows` of the 16 and `cols` of the 256 are inside the result; cols is a
// multiple of what 16 bytes hold.
template <class Result, bool accumulates>
__device__ void store(const float (&sums)[128], std::byte* staging, Result* result,
                      std::int64_t stride, int rows, int cols, int lane) {
  using Staged = std::conditional_t<accumulates, float, Result>;
  constexpr int width = packet_size<Staged>;                     // elements in 16 bytes
  constexpr int piece = 128 / static_cast<int>(sizeof(Staged));  // columns at a time
  constexpr int packets = 4;  // of a thread: 16 rows of 8 packets
  struct alignas(width * sizeof(Result)) Stored {
    Result values[width];
  };
  // Rows of 128 bytes, whose packets are swapped so that no two threads of an access share a bank.
  const auto packet_at = [&](int row, int packet) {
    const int swap = sizeof(Staged) == 2 ? row % 8 : row % 4 * 2;
    return staging + row * 128 + (packet ^ swap) * 16;
  };
  Stored before[2][packets];  // what the sums are added to: of this piece and of the next one
  const auto fetch = [&](int first, Stored(&into)[packets]) {
#pragma unroll
    for (int i = 0; i < packets; ++i) {
      const int row = (i * 32 + lane) / 8;
      const int col = first + lane % 8 * width;
      if (row < rows && col < cols)
        into[i] = *reinterpret_cast<const Stored*>(result + row * stride + col);
    }
  };
  if constexpr (accumulates) fetch(0, before[0]);
#pragma unroll
  for (int first = 0; first < tile_n; first += piece) {
    if (first >= cols) break;
    if constexpr (accumulates)
      if (first + piece < tile_n) fetch(first + piece, before[(first / piece + 1) % 2]);
    __syncwarp();  // the reads of the piece before
#pragma unroll
    for (int j = 0; j < piece / 8; ++j)
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const float left = sums[(first / 8 + j) * 4 + 2 * i];
        const float right = sums[(first / 8 + j) * 4 + 2 * i + 1];
        const int row = 8 * i + lane / 4;
        if constexpr (sizeof(Staged) == 2)
          *reinterpret_cast<__nv_bfloat162*>(packet_at(row, j) + lane % 4 * 4) =
              __floats2bfloat162_rn(left, right);
        else
          *reinterpret_cast<float2*>(packet_at(row, 2 * j + lane % 4 / 2) + lane % 2 * 8) =
              make_float2(left, right);
      }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < packets; ++i) {
      const int row = (i * 32 + lane) / 8;
      const int col = first + lane % 8 * width;
      const auto staged = *reinterpret_cast<const Packet<Staged>*>(packet_at(row, lane % 8));
      if (row >= rows || col >= cols) continue;
      Stored stored;
#pragma unroll
      for (int c = 0; c < width; ++c)
        if constexpr (accumulates)
          stored.values[c] = from_float<Result>(to_float(before[first / piece % 2][i].values[c]) +
                                                staged.values[c]);
        else
          stored.values[c] = staged.values[c];
      *reinterpret_cast<Stored*>(result + row * stride + col) = stored;
    }
  }
}

}  // namespace switchyard::kernels::cuda::wgmma
