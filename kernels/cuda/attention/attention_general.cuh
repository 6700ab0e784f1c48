// Tiles of the general kernels: 256 threads as 16 x 16, thread (y, x) has the rows y + 16 i and the
// columns x + 16 j of a 64 x 64 tile.
#pragma once

#include "kernels/cuda/attention/attention_tiles.cuh"

namespace switchyard::kernels::cuda::general {

inline constexpr int tile = 64;
inline constexpr int side = 16;
inline constexpr int threads = side * side;
inline constexpr int per_thread = tile / side;  // rows, and columns
inline constexpr int piece = 32;                // of a head vector

struct Accumulator {
  float at[per_thread][per_thread];
  __device__ void clear() {
    for (auto& row : at)
      for (float& value : row) value = 0.0f;
  }
};

// Operands of one step. `columns` takes the place of the pieces when they are no longer read.
struct Scratch {
  union {
    float pieces[2][tile][piece + 1];
    float columns[tile][tile];
  };
  float weights[tile][tile + 1];  // probabilities or gradients of scores, [query][key]
};

__device__ inline int thread_row() {
  return static_cast<int>(threadIdx.x) / side;
}
__device__ inline int thread_col() {
  return static_cast<int>(threadIdx.x) % side;
}

// Rows row_begin ... of a matrix whose last valid one is num_rows - 1, columns col_begin ... of
// those below num_cols; zeros outside. `base` is the address of row 0, column 0.
template <class T, int width>
__device__ void load_tile(float (*to)[width], int num_to_load, const T* base, std::int64_t stride,
                          std::int32_t row_begin, std::int32_t num_rows, std::int32_t col_begin,
                          std::int32_t num_cols) {
  for (int i = static_cast<int>(threadIdx.x); i < tile * num_to_load; i += threads) {
    const int row = i / num_to_load, col = i % num_to_load;
    const bool inside = row_begin + row < num_rows && col_begin + col < num_cols;
    to[row][col] =
        inside ? to_float(base[std::int64_t{row_begin + row} * stride + col_begin + col]) : 0.0f;
  }
}

// A part of a head's rows: where they lie and how many there are.
template <class T>
struct HeadRows {
  const T* base = nullptr;
  std::int64_t stride = 0;
  std::int32_t num_rows = 0;
};
template <class T>
__device__ HeadRows<T> head_rows(const MatrixRows<const T>& matrix, std::int64_t sequence,
                                 std::int32_t length, std::int32_t head, std::int32_t head_dim) {
  return {matrix[sequence * length] + std::int64_t{head} * head_dim, matrix.stride, length};
}

// acc[i][j] = a[row] . b[col] over head_dim. Begins and ends with the pieces free to be written.
template <class T>
__device__ void multiply_rows(Accumulator& acc, Scratch& s, const HeadRows<T>& a,
                              std::int32_t a_begin, const HeadRows<T>& b, std::int32_t b_begin,
                              std::int32_t head_dim) {
  acc.clear();
  for (std::int32_t d = 0; d < head_dim; d += piece) {
    load_tile(s.pieces[0], piece, a.base, a.stride, a_begin, a.num_rows, d, head_dim);
    load_tile(s.pieces[1], piece, b.base, b.stride, b_begin, b.num_rows, d, head_dim);
    __syncthreads();
    for (int n = 0; n < piece; ++n) {
      float left[per_thread], right[per_thread];
#pragma unroll
      for (int i = 0; i < per_thread; ++i) {
        left[i] = s.pieces[0][thread_row() + side * i][n];
        right[i] = s.pieces[1][thread_col() + side * i][n];
      }
#pragma unroll
      for (int i = 0; i < per_thread; ++i)
#pragma unroll
        for (int j = 0; j < per_thread; ++j) acc.at[i][j] = fmaf(left[i], right[j], acc.at[i][j]);
    }
    __syncthreads();
  }
}

__device__ inline void store_weights(Scratch& s, const Accumulator& values) {
#pragma unroll
  for (int i = 0; i < per_thread; ++i)
#pragma unroll
    for (int j = 0; j < per_thread; ++j)
      s.weights[thread_row() + side * i][thread_col() + side * j] = values.at[i][j];
}

// acc[row][col] += sum over n of weights[row][n] columns[n][col]; transposed: of weights[n][row].
template <bool transposed>
__device__ void multiply_columns(Accumulator& acc, const Scratch& s) {
  for (int n = 0; n < tile; ++n) {
    float left[per_thread], right[per_thread];
#pragma unroll
    for (int i = 0; i < per_thread; ++i) {
      const int row = thread_row() + side * i;
      left[i] = transposed ? s.weights[n][row] : s.weights[row][n];
      right[i] = s.columns[n][thread_col() + side * i];
    }
#pragma unroll
    for (int i = 0; i < per_thread; ++i)
#pragma unroll
      for (int j = 0; j < per_thread; ++j) acc.at[i][j] = fmaf(left[i], right[j], acc.at[i][j]);
  }
}

// The sum, or the largest, of the 16 threads that share a row of threads.
template <class Join>
__device__ float over_row(float value, Join join) {
  for (int distance = side / 2; distance > 0; distance /= 2)
    value = join(value, __shfl_xor_sync(0xffffffffu, value, distance));
  return value;
}

}  // namespace switchyard::kernels::cuda::general
