#include "kernels/cuda/attention/attention_general.hpp"

#include "kernels/cuda/attention/attention_general.cuh"

namespace switchyard::kernels::cuda {

namespace {

using namespace general;

template <class T, class O>
struct ForwardOperands {
  MatrixRows<const T> q, k, v;
  MatrixRows<O> out;
  MatrixRows<float> lse;
  bool merges = false;
};

// Running softmax of a thread's rows; the 16 threads of a row of threads hold the same.
struct RowState {
  float max[per_thread];
  float sum[per_thread];
};

// Scores become probabilities by the maxima so far; what was summed before is scaled to them.
__device__ void take_scores(Accumulator& scores, const SeenKeys (&seen)[per_thread],
                            std::int32_t key_begin, float scale, RowState& state,
                            Accumulator& out) {
  for (int i = 0; i < per_thread; ++i) {
    float largest = minus_infinity;
    for (int j = 0; j < per_thread; ++j) {
      float& score = scores.at[i][j];
      score = seen[i].has(key_begin + thread_col() + side * j) ? score * scale : minus_infinity;
      largest = fmaxf(largest, score);
    }
    largest = over_row(largest, [](float a, float b) { return fmaxf(a, b); });
    const float max = fmaxf(state.max[i], largest);
    const float base = max == minus_infinity ? 0.0f : max;
    const float correction = exp2f(state.max[i] - base);
    float sum = 0.0f;
    for (int j = 0; j < per_thread; ++j) {
      scores.at[i][j] = exp2f(scores.at[i][j] - base);
      sum += scores.at[i][j];
      out.at[i][j] *= correction;
    }
    sum = over_row(sum, [](float a, float b) { return a + b; });
    state.sum[i] = state.sum[i] * correction + sum;
    state.max[i] = max;
  }
}

// One block: 64 queries of a head. Of a long head vector all columns, 64 at a time.
template <class T, class O>
__global__ void __launch_bounds__(threads)
    forward_kernel(AttentionTask task, ForwardOperands<T, O> to) {
  __shared__ Scratch scratch;
  const std::int32_t query_tiles = (task.query_length + tile - 1) / tile;
  // The last queries see most keys: they come first.
  const auto query_begin =
      static_cast<std::int32_t>(query_tiles - 1 - blockIdx.x / task.num_heads % query_tiles) * tile;
  const auto head = static_cast<std::int32_t>(blockIdx.x % task.num_heads);
  const std::int64_t sequence = blockIdx.x / task.num_heads / query_tiles;
  const std::int32_t query_end = min(query_begin + tile, task.query_length);
  const auto q = head_rows(to.q, sequence, task.query_length, head, task.head_dim);
  const std::int32_t kv_head = head / task.group;
  const auto k = head_rows(to.k, sequence, task.key_length, kv_head, task.head_dim);
  const auto v = head_rows(to.v, sequence, task.key_length, kv_head, task.head_dim);
  const std::int64_t first_row = sequence * task.query_length;

  SeenKeys seen[per_thread];
  float lse_before[per_thread];
  for (int i = 0; i < per_thread; ++i) {
    const std::int32_t query = query_begin + thread_row() + side * i;
    seen[i] = seen_keys_of(task, sequence, query);
    lse_before[i] =
        to.merges && query < query_end ? to.lse[first_row + query][head] : minus_infinity;
  }
  __syncthreads();  // all have read their rows' lse before one writes it

  const TileRange tiles = key_tiles_of(task, sequence, query_begin, query_end, tile);
  for (std::int32_t col_begin = 0; col_begin < task.head_dim; col_begin += tile) {
    Accumulator out;
    out.clear();
    RowState state;
    for (int i = 0; i < per_thread; ++i) {
      state.max[i] = minus_infinity;
      state.sum[i] = 0.0f;
    }
    for (std::int32_t t = tiles.begin; t < tiles.end; ++t) {
      Accumulator scores;
      multiply_rows(scores, scratch, q, query_begin, k, t * tile, task.head_dim);
      take_scores(scores, seen, t * tile, task.scale * log2_e, state, out);
      store_weights(scratch, scores);
      load_tile(scratch.columns, tile, v.base, v.stride, t * tile, v.num_rows, col_begin,
                task.head_dim);
      __syncthreads();
      multiply_columns<false>(out, scratch);
      __syncthreads();
    }
    for (int i = 0; i < per_thread; ++i) {
      const std::int32_t query = query_begin + thread_row() + side * i;
      if (query >= query_end) continue;
      const RowOutput row = output_of(state.max[i], state.sum[i], to.merges, lse_before[i]);
      if (!row.writes) continue;
      O* target = to.out[first_row + query] + std::int64_t{head} * task.head_dim;
      for (int j = 0; j < per_thread; ++j) {
        const std::int32_t col = col_begin + thread_col() + side * j;
        if (col >= task.head_dim) continue;
        const float before = row.before == 0.0f ? 0.0f : row.before * to_float(target[col]);
        target[col] = from_float<O>(before + row.own * out.at[i][j]);
      }
      if (col_begin == 0 && thread_col() == 0) to.lse[first_row + query][head] = row.lse;
    }
  }
}

}  // namespace

void attention_forward_general(const AttentionShape& shape, const TensorView& q,
                               const TensorView& k, const TensorView& v, const KeyRanges& ranges,
                               const TensorView& out, const TensorView& lse, Merge merge) {
  const AttentionTask task = task_of(shape, ranges);
  const std::int64_t blocks =
      shape.num_sequences * shape.num_heads * num_tiles(shape.query_length, tile);
  with_float_type(q.dtype, [&](auto type) {
    using T = decltype(type);
    with_float_type(out.dtype, [&](auto result) {
      using O = decltype(result);
      const ForwardOperands<T, O> operands{rows_of<const T>(q), rows_of<const T>(k),
                                           rows_of<const T>(v), rows_of<O>(out),
                                           rows_of<float>(lse), merge == Merge::with_before};
      forward_kernel<T, O><<<num_blocks(blocks, 1), threads, 0, stream_of(q)>>>(task, operands);
    });
  });
  check_launch();
}

}  // namespace switchyard::kernels::cuda
