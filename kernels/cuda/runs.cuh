// Rows cut into runs of neighbours, one run a thread at a time: what pointwise kernels and kernels
// of whole rows share. How a row is cut depends on its element type and its length alone, never on
// addresses, so a sum over a row has one order.
#pragma once

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <type_traits>

#include "kernels/cuda/common.cuh"

namespace switchyard::kernels::cuda {

template <class T, int width>
inline constexpr int run_alignment = std::min(16, width* static_cast<int>(sizeof(T)));

// `width` neighbours of a row.
template <class T, int width>
struct alignas(run_alignment<T, width>) Run {
  T values[width];
};

// A view's rows on the card. T may be const; no rows: no data.
template <class T>
struct CardRows {
  T* data = nullptr;
  std::int64_t stride = 0;  // elements
  __device__ T* operator[](std::int64_t row) const { return data + row * stride; }
};

template <class T>
CardRows<T> card_rows(const TensorView& view) {
  if (view.empty()) return {};
  return {pointer<std::remove_const_t<T>>(view), view.row_stride};
}

// Whether rows of `view` are whole runs at addresses of which a run is read in accesses of 16 bytes
// (or in one, if it is shorter).
template <class T, int width>
bool in_runs(const TensorView& view) {
  constexpr std::int64_t alignment = run_alignment<T, width>;
  return view.cols() % width == 0 &&
         (view.rows() <= 1 || view.row_stride * size_of(view.dtype) % alignment == 0) &&
         reinterpret_cast<std::uintptr_t>(view.kernel_bytes()) % alignment == 0;
}

// A run of which `left` elements exist; what lies beyond the row is 0. `whole`: in_runs().
template <class T, int width, bool whole>
__device__ Run<T, width> load_run(const T* from, std::int64_t left) {
  if constexpr (whole) {
    return *reinterpret_cast<const Run<T, width>*>(from);
  } else {
    Run<T, width> run;
#pragma unroll
    for (int j = 0; j < width; ++j) run.values[j] = j < left ? from[j] : from_float<T>(0.0f);
    return run;
  }
}

// Accesses to the card's memory by name: the compiler (nvcc 13.0) cuts what is assigned as a struct
// into stores of 4 bytes.
__device__ inline void store_access(uint4* to, const uint4& v) {
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to)),
               "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w)
               : "memory");
}
__device__ inline void store_access(uint2* to, const uint2& v) {
  asm volatile("st.global.v2.u32 [%0], {%1, %2};" ::"l"(__cvta_generic_to_global(to)), "r"(v.x),
               "r"(v.y)
               : "memory");
}
template <int bytes>
using AccessOf = std::conditional_t<bytes == 16, uint4, uint2>;

template <class T, int width, bool whole>
__device__ void store_run(T* to, std::int64_t left, const Run<T, width>& run) {
  if constexpr (whole) {
    using Access = AccessOf<run_alignment<T, width>>;
    static_assert(sizeof(Access) == run_alignment<T, width>);
    constexpr int num_accesses = static_cast<int>(sizeof(run) / sizeof(Access));
    Access accesses[num_accesses];
    memcpy(accesses, &run, sizeof(run));
#pragma unroll
    for (int i = 0; i < num_accesses; ++i)
      store_access(reinterpret_cast<Access*>(to) + i, accesses[i]);
  } else {
#pragma unroll
    for (int j = 0; j < width; ++j)
      if (j < left) to[j] = run.values[j];
  }
}

// A kernel over all runs of [rows, cols]: op(row, col, left) in a thread of its own, for the run
// that starts at `col` of `row`, `left` columns before the row's end.
struct RunGrid {
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  unsigned blocks_across = 1;  // blocks beside one another over the columns
};

template <int width, class Op>
__global__ void run_kernel(RunGrid grid, Op op) {
  const std::int64_t row = std::int64_t{blockIdx.x / grid.blocks_across} * blockDim.y + threadIdx.y;
  const std::int64_t col =
      (std::int64_t{blockIdx.x % grid.blocks_across} * blockDim.x + threadIdx.x) * width;
  if (row < grid.rows && col < grid.cols) op(row, col, grid.cols - col);
}

template <int width, class Op>
void for_each_run(cudaStream_t stream, std::int64_t rows, std::int64_t cols, const Op& op) {
  constexpr unsigned threads = 256;
  const std::int64_t runs = (cols + width - 1) / width;
  unsigned across = 32;
  while (across < threads && across < runs) across *= 2;
  const unsigned down = threads / across;
  const RunGrid grid{rows, cols, num_blocks(runs, across)};
  const unsigned blocks = grid.blocks_across * num_blocks(rows, down);
  run_kernel<width><<<blocks, dim3(across, down), 0, stream>>>(grid, op);
  check_launch();
}

// The sum over a block of any whole number of warps, in every thread, in a fixed order. `of_warp`:
// shared, one for each warp. Calls in a row need memory of their own, turn by turn.
template <class T>
__device__ T sum_of_block(T value, T* of_warp) {
  const unsigned lane = threadIdx.x % 32;
  value = warp_sum(value);
  if (lane == 0) of_warp[threadIdx.x / 32] = value;
  __syncthreads();
  return warp_sum(lane < blockDim.x / 32 ? of_warp[lane] : T{0});
}

// Ends the program's work on the card unless `holds`: for what the host could only look at by
// waiting. The message goes to stdout; the next call that asks the card throws InternalError.
__device__ __noinline__ inline void fail_on_card(const char* what) {
  printf("switchyard: a kernel on the card expected %s\n", what);
  __trap();
}
__device__ inline void expect_on_card(bool holds, const char* what) {
  if (holds) return;
  fail_on_card(what);
  __builtin_unreachable();  // so that nothing need be kept for later
}

}  // namespace switchyard::kernels::cuda
