// What the kernels of attention share: the problem as a kernel takes it, which tiles see which, and
// how results are written.
#pragma once

#include <cmath>
#include <type_traits>

#include "kernels/attention/attention.hpp"
#include "kernels/cuda/common.cuh"

namespace switchyard::kernels::cuda {

inline constexpr float log2_e = 1.4426950408889634f;
inline constexpr float ln_2 = 0.6931471805599453f;
inline constexpr float minus_infinity = -INFINITY;

// Rows of a matrix of whatever type, as a kernel takes them.
template <class T>
struct MatrixRows {
  T* data = nullptr;
  std::int64_t stride = 0;  // elements
  __host__ __device__ T* operator[](std::int64_t row) const { return data + row * stride; }
};
template <class T>
MatrixRows<T> rows_of(const TensorView& view) {
  if (view.empty()) return {};
  return {pointer<std::remove_const_t<T>>(view), view.row_stride};
}

struct AttentionTask {
  std::int64_t num_sequences = 0;
  std::int32_t query_length = 0;
  std::int32_t key_length = 0;
  std::int32_t num_heads = 0;
  std::int32_t num_kv_heads = 0;
  std::int32_t group = 0;  // heads that read one kv head
  std::int32_t head_dim = 0;
  float scale = 1.0f;
  const std::int32_t* first = nullptr;
  const std::int32_t* end = nullptr;
};
inline AttentionTask task_of(const AttentionShape& s, const KeyRanges& ranges) {
  const auto small = [](std::int64_t value) { return static_cast<std::int32_t>(value); };
  return {.num_sequences = s.num_sequences,
          .query_length = small(s.query_length),
          .key_length = small(s.key_length),
          .num_heads = small(s.num_heads),
          .num_kv_heads = small(s.num_kv_heads),
          .group = small(s.num_heads / s.num_kv_heads),
          .head_dim = small(s.head_dim),
          .scale = s.scale,
          .first = s.query_length > 0 ? pointer<std::int32_t>(ranges.first) : nullptr,
          .end = s.query_length > 0 ? pointer<std::int32_t>(ranges.end) : nullptr};
}

inline std::int64_t num_tiles(std::int64_t length, std::int64_t tile) {
  return (length + tile - 1) / tile;
}

// begin ... end - 1.
struct TileRange {
  std::int32_t begin = 0;
  std::int32_t end = 0;
};

// Key tiles that some of the queries query_begin ... query_end - 1 of a sequence see: ranges never
// go back, so the first row's first key is the first, the last row's end the end.
__device__ inline TileRange key_tiles_of(const AttentionTask& task, std::int64_t sequence,
                                         std::int32_t query_begin, std::int32_t query_end,
                                         std::int32_t keys_of_tile) {
  const std::int64_t row = sequence * task.query_length;
  const std::int32_t first = max(task.first[row + query_begin], 0);
  const std::int32_t end = min(task.end[row + query_end - 1], task.key_length);
  if (first >= end) return {0, 0};
  return {first / keys_of_tile, (end + keys_of_tile - 1) / keys_of_tile};
}

// The first of n ascending values that is above `bound`.
__device__ inline std::int32_t first_above(const std::int32_t* values, std::int32_t n,
                                           std::int32_t bound) {
  std::int32_t low = 0, high = n;
  while (low < high) {
    const std::int32_t middle = low + (high - low) / 2;
    if (values[middle] > bound)
      high = middle;
    else
      low = middle + 1;
  }
  return low;
}

// Query tiles of a sequence of which some row may see the keys key_begin ... key_end - 1.
__device__ inline TileRange query_tiles_of(const AttentionTask& task, std::int64_t sequence,
                                           std::int32_t key_begin, std::int32_t key_end,
                                           std::int32_t queries_of_tile) {
  const std::int64_t row = sequence * task.query_length;
  const std::int32_t begin = first_above(task.end + row, task.query_length, key_begin);
  const std::int32_t end = first_above(task.first + row, task.query_length, key_end - 1);
  if (begin >= end) return {0, 0};
  return {begin / queries_of_tile, (end + queries_of_tile - 1) / queries_of_tile};
}

// The keys that a query sees; none for rows behind the sequence's last.
struct SeenKeys {
  std::int32_t first = 0;
  std::int32_t end = 0;
  __device__ bool has(std::int32_t key) const { return key >= first && key < end; }
};
__device__ inline SeenKeys seen_keys_of(const AttentionTask& task, std::int64_t sequence,
                                        std::int32_t query) {
  if (query >= task.query_length) return {0, 0};
  const std::int64_t row = sequence * task.query_length + query;
  return {task.first[row], task.end[row]};
}

// How a row's sums become its output: out = before * out + own * sums, and its lse.
struct RowOutput {
  float before = 0.0f;
  float own = 0.0f;
  float lse = minus_infinity;
  bool writes = true;  // false: what is there stays
};
// max: of the row's scores, to base 2 (scale * log2(e) included); sum: of 2^(score - max).
// lse_before: of the output that is there, where it is merged.
__device__ inline RowOutput output_of(float max, float sum, bool merges, float lse_before) {
  if (sum == 0.0f) return {0.0f, 0.0f, minus_infinity, !merges};
  const float lse = max * ln_2 + logf(sum);
  if (!merges || lse_before == minus_infinity) return {0.0f, 1.0f / sum, lse, true};
  // Exponentials of differences only, so nothing overflows.
  const float larger = fmaxf(lse_before, lse);
  const float smaller_exp = expf(fminf(lse_before, lse) - larger);
  const float smaller_share = smaller_exp / (1.0f + smaller_exp);
  const float larger_share = 1.0f / (1.0f + smaller_exp);
  const bool grows = lse_before < lse;
  return {grows ? smaller_share : larger_share, (grows ? larger_share : smaller_share) / sum,
          larger + log1pf(smaller_exp), true};
}

// 2^x for x at most 0: rounding may leave a score above its row's lse by an ulp, which is much
// where both are huge.
__device__ inline float probability(float x) {
  return exp2f(fminf(x, 0.0f));
}

// A gradient written, or added to what is there (f32 only).
template <class T>
__device__ void write_gradient(T* target, float value, bool adds) {
  if constexpr (sizeof(T) == 4) {
    *target = adds ? *target + value : value;
  } else {
    *target = from_float<T>(value);
  }
}

}  // namespace switchyard::kernels::cuda
