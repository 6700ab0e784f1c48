// Two kernels, so that every sum has one owner and one order: dq by the block that has the queries,
// dk and dv by the block that has the keys. Scores and their gradients are made in both.
#include "kernels/cuda/attention/attention_general.cuh"
#include "kernels/cuda/attention/attention_general.hpp"

namespace switchyard::kernels::cuda {

namespace {

using namespace general;

template <class T>
struct BackwardOperands {
  MatrixRows<const T> q, k, v, dout;
  MatrixRows<const float> lse, delta;
};

// Of a thread's rows: what they see, their lse to base 2, and delta.
struct QueryRows {
  SeenKeys seen[per_thread];
  float lse[per_thread];
  float delta[per_thread];
};
template <class T>
__device__ QueryRows query_rows(const AttentionTask& task, const BackwardOperands<T>& from,
                                std::int64_t sequence, std::int32_t head,
                                std::int32_t query_begin) {
  QueryRows rows;
  for (int i = 0; i < per_thread; ++i) {
    const std::int32_t query = query_begin + thread_row() + side * i;
    rows.seen[i] = seen_keys_of(task, sequence, query);
    rows.lse[i] = 0.0f;
    rows.delta[i] = 0.0f;
    if (query >= task.query_length) continue;
    const std::int64_t row = sequence * task.query_length + query;
    const float lse = from.lse[row][head];
    if (lse == minus_infinity)
      rows.seen[i] = {0, 0};
    else
      rows.lse[i] = lse * log2_e;
    rows.delta[i] = from.delta[row][head];
  }
  return rows;
}

// Probabilities of the scores in `acc`.
__device__ void take_probabilities(Accumulator& acc, const QueryRows& rows, std::int32_t key_begin,
                                   float scale) {
  for (int i = 0; i < per_thread; ++i)
    for (int j = 0; j < per_thread; ++j) {
      float& value = acc.at[i][j];
      value = rows.seen[i].has(key_begin + thread_col() + side * j)
                  ? probability(value * scale - rows.lse[i])
                  : 0.0f;
    }
}

// From gradients of probabilities to those of scores. A pair that is not seen has none, whatever
// its values are.
__device__ void take_score_gradients(Accumulator& dprobs, const Accumulator& probs,
                                     const QueryRows& rows) {
  for (int i = 0; i < per_thread; ++i)
    for (int j = 0; j < per_thread; ++j)
      dprobs.at[i][j] =
          probs.at[i][j] == 0.0f ? 0.0f : probs.at[i][j] * (dprobs.at[i][j] - rows.delta[i]);
}

// Writes 64 x 64 of a gradient, rows below num_rows, columns below head_dim.
template <class O>
__device__ void write_tile(const Accumulator& values, float factor, O* base, std::int64_t stride,
                           std::int32_t row_begin, std::int32_t num_rows, std::int32_t col_begin,
                           std::int32_t head_dim, bool adds) {
  for (int i = 0; i < per_thread; ++i) {
    const std::int32_t row = row_begin + thread_row() + side * i;
    if (row >= num_rows) continue;
    for (int j = 0; j < per_thread; ++j) {
      const std::int32_t col = col_begin + thread_col() + side * j;
      if (col >= head_dim) continue;
      write_gradient(base + std::int64_t{row} * stride + col, factor * values.at[i][j], adds);
    }
  }
}

// One block: 64 columns of dq of 64 queries of a head.
template <class T, class O>
__global__ void __launch_bounds__(threads)
    query_kernel(AttentionTask task, BackwardOperands<T> from, MatrixRows<O> dq, bool adds) {
  __shared__ Scratch scratch;
  const std::int32_t query_tiles = (task.query_length + tile - 1) / tile;
  const auto query_begin =
      static_cast<std::int32_t>(query_tiles - 1 - blockIdx.x / task.num_heads % query_tiles) * tile;
  const auto head = static_cast<std::int32_t>(blockIdx.x % task.num_heads);
  const std::int64_t sequence = blockIdx.x / task.num_heads / query_tiles;
  const std::int32_t col_begin = static_cast<std::int32_t>(blockIdx.y) * tile;
  const std::int32_t query_end = min(query_begin + tile, task.query_length);
  const std::int32_t kv_head = head / task.group;
  const auto q = head_rows(from.q, sequence, task.query_length, head, task.head_dim);
  const auto dout = head_rows(from.dout, sequence, task.query_length, head, task.head_dim);
  const auto k = head_rows(from.k, sequence, task.key_length, kv_head, task.head_dim);
  const auto v = head_rows(from.v, sequence, task.key_length, kv_head, task.head_dim);
  const QueryRows rows = query_rows(task, from, sequence, head, query_begin);

  Accumulator sum;
  sum.clear();
  const TileRange tiles = key_tiles_of(task, sequence, query_begin, query_end, tile);
  for (std::int32_t t = tiles.begin; t < tiles.end; ++t) {
    Accumulator probs, gradients;
    multiply_rows(probs, scratch, q, query_begin, k, t * tile, task.head_dim);
    take_probabilities(probs, rows, t * tile, task.scale * log2_e);
    multiply_rows(gradients, scratch, dout, query_begin, v, t * tile, task.head_dim);
    take_score_gradients(gradients, probs, rows);
    store_weights(scratch, gradients);
    load_tile(scratch.columns, tile, k.base, k.stride, t * tile, k.num_rows, col_begin,
              task.head_dim);
    __syncthreads();
    multiply_columns<false>(sum, scratch);
    __syncthreads();
  }
  write_tile(sum, task.scale, dq[sequence * task.query_length] + std::int64_t{head} * task.head_dim,
             dq.stride, query_begin, task.query_length, col_begin, task.head_dim, adds);
}

// One block: 64 columns of dk and dv of 64 keys of a kv head, over the heads that read it in their
// order, and their queries in theirs.
template <class T, class OK, class OV>
__global__ void __launch_bounds__(threads)
    key_kernel(AttentionTask task, BackwardOperands<T> from, MatrixRows<OK> dk, MatrixRows<OV> dv,
               bool adds) {
  __shared__ Scratch scratch;
  const std::int32_t key_tiles = (task.key_length + tile - 1) / tile;
  // The first keys are seen by most queries: they come first.
  const auto key_begin =
      static_cast<std::int32_t>(blockIdx.x / task.num_kv_heads % key_tiles) * tile;
  const auto kv_head = static_cast<std::int32_t>(blockIdx.x % task.num_kv_heads);
  const std::int64_t sequence = blockIdx.x / task.num_kv_heads / key_tiles;
  const std::int32_t col_begin = static_cast<std::int32_t>(blockIdx.y) * tile;
  const std::int32_t key_end = min(key_begin + tile, task.key_length);
  const auto k = head_rows(from.k, sequence, task.key_length, kv_head, task.head_dim);
  const auto v = head_rows(from.v, sequence, task.key_length, kv_head, task.head_dim);

  Accumulator dk_sum, dv_sum;
  dk_sum.clear();
  dv_sum.clear();
  const TileRange tiles = query_tiles_of(task, sequence, key_begin, key_end, tile);
  for (std::int32_t h = 0; h < task.group; ++h) {
    const std::int32_t head = kv_head * task.group + h;
    const auto q = head_rows(from.q, sequence, task.query_length, head, task.head_dim);
    const auto dout = head_rows(from.dout, sequence, task.query_length, head, task.head_dim);
    for (std::int32_t t = tiles.begin; t < tiles.end; ++t) {
      const QueryRows rows = query_rows(task, from, sequence, head, t * tile);
      Accumulator probs, gradients;
      multiply_rows(probs, scratch, q, t * tile, k, key_begin, task.head_dim);
      take_probabilities(probs, rows, key_begin, task.scale * log2_e);
      multiply_rows(gradients, scratch, dout, t * tile, v, key_begin, task.head_dim);
      take_score_gradients(gradients, probs, rows);

      store_weights(scratch, probs);
      load_tile(scratch.columns, tile, dout.base, dout.stride, t * tile, dout.num_rows, col_begin,
                task.head_dim);
      __syncthreads();
      multiply_columns<true>(dv_sum, scratch);
      __syncthreads();
      store_weights(scratch, gradients);
      load_tile(scratch.columns, tile, q.base, q.stride, t * tile, q.num_rows, col_begin,
                task.head_dim);
      __syncthreads();
      multiply_columns<true>(dk_sum, scratch);
      __syncthreads();
    }
  }
  const std::int64_t col = std::int64_t{kv_head} * task.head_dim;
  write_tile(dk_sum, task.scale, dk[sequence * task.key_length] + col, dk.stride, key_begin,
             task.key_length, col_begin, task.head_dim, adds);
  write_tile(dv_sum, 1.0f, dv[sequence * task.key_length] + col, dv.stride, key_begin,
             task.key_length, col_begin, task.head_dim, adds);
}

}  // namespace

void attention_backward_general(const AttentionShape& shape, const TensorView& q,
                                const TensorView& k, const TensorView& v, const KeyRanges& ranges,
                                const TensorView& lse, const TensorView& delta,
                                const TensorView& dout, const AttentionGradients& gradients) {
  const AttentionTask task = task_of(shape, ranges);
  const unsigned columns = num_blocks(shape.head_dim, tile);
  const std::int64_t query_blocks =
      shape.num_sequences * shape.num_heads * num_tiles(shape.query_length, tile);
  const std::int64_t key_blocks =
      shape.num_sequences * shape.num_kv_heads * num_tiles(shape.key_length, tile);
  with_float_type(q.dtype, [&](auto type) {
    using T = decltype(type);
    const BackwardOperands<T> operands{rows_of<const T>(q),       rows_of<const T>(k),
                                       rows_of<const T>(v),       rows_of<const T>(dout),
                                       rows_of<const float>(lse), rows_of<const float>(delta)};
    if (query_blocks > 0)
      with_float_type(gradients.dq.dtype, [&](auto result) {
        using O = decltype(result);
        query_kernel<T, O>
            <<<dim3(num_blocks(query_blocks, 1), columns), threads, 0, stream_of(q)>>>(
                task, operands, rows_of<O>(gradients.dq), gradients.dq_merge == Merge::with_before);
        check_launch();
      });
    if (key_blocks > 0)
      with_float_type(gradients.dk.dtype, [&](auto of_keys) {
        with_float_type(gradients.dv.dtype, [&](auto of_values) {
          using OK = decltype(of_keys);
          using OV = decltype(of_values);
          key_kernel<T, OK, OV>
              <<<dim3(num_blocks(key_blocks, 1), columns), threads, 0, stream_of(q)>>>(
                  task, operands, rows_of<OK>(gradients.dk), rows_of<OV>(gradients.dv),
                  gradients.dkv_merge == Merge::with_before);
          check_launch();
        });
      });
  });
}

}  // namespace switchyard::kernels::cuda
