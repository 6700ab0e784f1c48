// Products of groups with fused multiply-adds in fp32. A block computes a tile of 64 x 64 of a
// result, 16 of k at a time; every sum runs over k in order, on one thread, so that a row's bits
// depend on nothing but the row and the weight.
#include <algorithm>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/products/group_product.hpp"
#include "kernels/cuda/products/group_tiles.cuh"

namespace switchyard::kernels::cuda {

namespace {

constexpr int tile = 64, tile_k = 16, threads = 256;
constexpr int per_thread = 4;  // a thread has 4 x 4 of the tile

template <class T, class Result>
struct Operands {
  const T* rows;  // [num_rows, m or k]
  std::int64_t rows_stride;
  const T* other_rows;  // [num_rows, n]
  std::int64_t other_stride;
  const T* weights[max_groups_of_launch];  // [out, in], dense
  Result* result;
  std::int64_t result_stride;
  GroupRows groups;
  int extent_m, extent_n, extent_k;  // of a group; the groups' rows take the place of one
  bool accumulate;
};

// One operand of a tile, [tile of m or n, k] in memory, element (i, k) at i * step + k * step_k.
template <class T>
struct Panel {
  const T* data;
  std::int64_t step;
  std::int64_t step_k;
  int extent;    // of i
  int extent_k;  // what lies beyond either counts as 0

  // Threads with neighbouring numbers read neighbouring addresses.
  template <bool k_is_dense>
  __device__ void load(int first_k, float (&into)[tile_k][tile + per_thread]) const {
#pragma unroll
    for (int j = 0; j < tile * tile_k / threads; ++j) {
      const int e = j * threads + static_cast<int>(threadIdx.x);
      const int i = k_is_dense ? e / tile_k : e % tile;
      const int k = k_is_dense ? e % tile_k : e / tile;
      const bool is_inside = i < extent && first_k + k < extent_k;
      into[k][i] = is_inside ? to_float(data[i * step + (first_k + k) * step_k]) : 0.0f;
    }
  }
};

template <ProductKind kind, class T, class Result>
__global__ void __launch_bounds__(threads)
    product_kernel(const __grid_constant__ Operands<T, Result> p) {
  __shared__ GroupTiles tiles;
  __shared__ alignas(16) float a_tile[tile_k][tile + per_thread];
  __shared__ alignas(16) float b_tile[tile_k][tile + per_thread];
  tiles.set_up<kind, tile, tile>(p.groups, p.extent_m, p.extent_n);
  const int thread_m = static_cast<int>(threadIdx.x) / (tile / per_thread) * per_thread;
  const int thread_n = static_cast<int>(threadIdx.x) % (tile / per_thread) * per_thread;
  constexpr bool is_gradient = kind == ProductKind::backward_weight;

  for (int number = static_cast<int>(blockIdx.x); number < tiles.num_tiles();
       number += static_cast<int>(gridDim.x)) {
    const GroupTile at = tiles.tile<kind, tile, tile>(number, p.extent_m, p.extent_n);
    const int extent_m = is_gradient ? p.extent_m : at.rows;
    const int extent_k = is_gradient ? at.rows : p.extent_k;
    Panel<T> a, b;
    if constexpr (is_gradient) {
      a = {p.rows + at.begin * p.rows_stride + at.m, 1, p.rows_stride, extent_m - at.m, extent_k};
      b = {p.other_rows + at.begin * p.other_stride + at.n, 1, p.other_stride, p.extent_n - at.n,
           extent_k};
    } else {
      a = {p.rows + (at.begin + at.m) * p.rows_stride, p.rows_stride, 1, extent_m - at.m, extent_k};
      const T* weight = p.weights[at.group];
      if constexpr (kind == ProductKind::forward)
        b = {weight + std::int64_t{at.n} * p.extent_k, p.extent_k, 1, p.extent_n - at.n, extent_k};
      else
        b = {weight + at.n, 1, p.extent_n, p.extent_n - at.n, extent_k};
    }

    float sums[per_thread][per_thread] = {};
    for (int first_k = 0; first_k < extent_k; first_k += tile_k) {
      __syncthreads();  // the reads of the panels before
      a.template load<!is_gradient>(first_k, a_tile);
      b.template load<kind == ProductKind::forward>(first_k, b_tile);
      __syncthreads();
#pragma unroll
      for (int k = 0; k < tile_k; ++k) {
        const float4 a4 = *reinterpret_cast<const float4*>(&a_tile[k][thread_m]);
        const float4 b4 = *reinterpret_cast<const float4*>(&b_tile[k][thread_n]);
        const float of_a[per_thread] = {a4.x, a4.y, a4.z, a4.w};
        const float of_b[per_thread] = {b4.x, b4.y, b4.z, b4.w};
#pragma unroll
        for (int i = 0; i < per_thread; ++i)
#pragma unroll
          for (int j = 0; j < per_thread; ++j) sums[i][j] = fmaf(of_a[i], of_b[j], sums[i][j]);
      }
    }

    Result* result = p.result;
    if constexpr (is_gradient)
      result += std::int64_t{at.group} * p.extent_m * p.result_stride;
    else
      result += at.begin * p.result_stride;
    for (int i = 0; i < per_thread; ++i)
      for (int j = 0; j < per_thread; ++j) {
        const int m = at.m + thread_m + i;
        const int n = at.n + thread_n + j;
        if (m >= extent_m || n >= p.extent_n) continue;
        Result& element = result[m * p.result_stride + n];
        element = from_float<Result>(p.accumulate ? to_float(element) + sums[i][j] : sums[i][j]);
      }
  }
}

int num_multiprocessors() {
  int card = 0;
  int count = 0;
  check(cudaGetDevice(&card));
  check(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, card));
  return count;
}

template <ProductKind kind, class T, class Result>
void launch(const GroupProduct& product) {
  const bool is_gradient = kind == ProductKind::backward_weight;
  const TensorView& result = product.result;
  const TensorView& rows = product.rows;
  const std::int64_t cols = result.shape[is_gradient ? 2 : 1];
  Operands<T, Result> p{};
  p.rows = pointer<T>(rows);
  p.rows_stride = rows.row_stride;
  if (is_gradient) {
    p.other_rows = pointer<T>(product.other_rows);
    p.other_stride = product.other_rows.row_stride;
  }
  p.result_stride = is_gradient ? cols : result.row_stride;
  p.extent_m = static_cast<int>(rows.cols());
  p.extent_n = static_cast<int>(cols);
  p.extent_k = static_cast<int>(rows.cols());
  p.accumulate = product.accumulate == Accumulate::yes;
  const std::int64_t groups = product.num_groups();
  for (std::int64_t first = 0; first < groups; first += max_groups_of_launch) {
    const std::int64_t count = std::min<std::int64_t>(groups - first, max_groups_of_launch);
    p.groups = {product.offsets.device == nullptr ? nullptr
                                                  : pointer<std::int32_t>(product.offsets) + first,
                static_cast<int>(count), static_cast<int>(rows.rows())};
    p.result = pointer<Result>(result) + (is_gradient ? first * p.extent_m * cols : 0);
    for (std::int64_t g = 0; g < count && !is_gradient; ++g)
      p.weights[g] = reinterpret_cast<const T*>(
          product.weights[static_cast<std::size_t>(first + g)].forward_layout().kernel_bytes());
    // More blocks than tiles cost nothing, fewer take several.
    product_kernel<kind, T, Result><<<num_multiprocessors() * 4, threads, 0, stream_of(rows)>>>(p);
    check_launch();
  }
}

}  // namespace

void simt_product(const GroupProduct& product, bool is_forward) {
  with_float_type(product.rows.dtype, [&](auto type) {
    using T = decltype(type);
    if (product.is_weight_gradient())
      return launch<ProductKind::backward_weight, T, float>(product);
    const auto with_result = [&]<class Result>() {
      if (is_forward)
        launch<ProductKind::forward, T, Result>(product);
      else
        launch<ProductKind::backward_input, T, Result>(product);
    };
    if (product.result.dtype == product.rows.dtype)
      with_result.template operator()<T>();
    else
      with_result.template operator()<float>();
  });
}

}  // namespace switchyard::kernels::cuda
