// dk and dv: a block has 128 keys of a kv head and takes the heads that read it in their order, and
// of each the queries that see the keys, 64 at a time. Scores are made with the keys as rows, so
// that they and their gradients go from registers into the products with dout and q.
#include "kernels/cuda/attention/attention_hopper.cuh"
#include "kernels/cuda/attention/attention_hopper_backward.cuh"

namespace switchyard::kernels::cuda {

namespace {

using namespace hopper;

constexpr int keys_of_tile = computing * rows_of_group;
constexpr int queries_of_tile = 64;
constexpr int stages = 3;
constexpr int row_lanes = 32;  // of the warp that brings what belongs to the query rows

template <int head_dim>
struct alignas(1024) Shared {
  std::byte k[keys_of_tile * head_dim * 2];
  std::byte v[keys_of_tile * head_dim * 2];
  std::byte q[stages][queries_of_tile * head_dim * 2];
  std::byte dout[stages][queries_of_tile * head_dim * 2];
  alignas(16) float lse[stages][queries_of_tile];  // to base 2
  alignas(16) float delta[stages][queries_of_tile];
  alignas(16) SeenKeys seen[stages][queries_of_tile];
  SeenKeys by_all[stages];  // what every query of the tile sees
  std::uint64_t keys_full;
  std::uint64_t full[stages], empty[stages];
};

struct KeyTile {
  std::int64_t sequence = 0;
  std::int32_t kv_head = 0;
  std::int32_t begin = 0;
  TileRange queries;
};
__device__ KeyTile key_tile(const AttentionTask& task) {
  const auto num_heads = static_cast<unsigned>(task.num_kv_heads);
  const auto tiles = static_cast<unsigned>((task.key_length + keys_of_tile - 1) / keys_of_tile);
  KeyTile tile;
  tile.kv_head = static_cast<std::int32_t>(blockIdx.x % num_heads);
  tile.sequence = blockIdx.x / num_heads / tiles;
  // The first keys are seen by most queries: they come first.
  tile.begin = static_cast<std::int32_t>(blockIdx.x / num_heads % tiles) * keys_of_tile;
  tile.queries = query_tiles_of(task, tile.sequence, tile.begin,
                                min(tile.begin + keys_of_tile, task.key_length), queries_of_tile);
  return tile;
}

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

// Calls visit(head, query tile) for all that a block takes, in its order.
template <class Visit>
__device__ void for_each_step(const AttentionTask& task, const KeyTile& tile, Visit visit) {
  for (std::int32_t h = 0; h < task.group; ++h)
    for (std::int32_t t = tile.queries.begin; t < tile.queries.end; ++t)
      visit(tile.kv_head * task.group + h, t);
}

template <int head_dim>
__device__ void bring_tiles(Shared<head_dim>& shared, const BackwardMaps& maps,
                            const AttentionTask& task, const KeyTile& tile) {
  constexpr int query_bytes = queries_of_tile * head_dim * 2,
                key_bytes = keys_of_tile * head_dim * 2;
  arrive_and_expect(&shared.keys_full, 2 * key_bytes);
  copy_tile<head_dim, keys_of_tile>(shared.k, maps.k, &shared.keys_full, tile.kv_head, tile.begin,
                                    tile.sequence);
  copy_tile<head_dim, keys_of_tile>(shared.v, maps.v, &shared.keys_full, tile.kv_head, tile.begin,
                                    tile.sequence);
  Turn<stages> turn;
  for_each_step(task, tile, [&](std::int32_t head, std::int32_t t) {
    const int s = turn.stage;
    wait(&shared.empty[s], turn.parity ^ 1);
    arrive_and_expect(&shared.full[s], 2 * query_bytes);
    copy_tile<head_dim, queries_of_tile>(shared.q[s], maps.q, &shared.full[s], head,
                                         t * queries_of_tile, tile.sequence);
    copy_tile<head_dim, queries_of_tile>(shared.dout[s], maps.dout, &shared.full[s], head,
                                         t * queries_of_tile, tile.sequence);
    turn.advance();
  });
}

// One warp: lse, delta and what is seen, of every tile of queries.
template <int head_dim>
__device__ void bring_rows(Shared<head_dim>& shared, const AttentionTask& task,
                           const RowValues& values, const KeyTile& tile) {
  const auto lane = static_cast<int>(threadIdx.x % row_lanes);
  Turn<stages> turn;
  for_each_step(task, tile, [&](std::int32_t head, std::int32_t t) {
    const int s = turn.stage;
    wait(&shared.empty[s], turn.parity ^ 1);
    SeenKeys by_all{0, 0x7fffffff};
    for (int row = lane; row < queries_of_tile; row += row_lanes) {
      const std::int32_t query = t * queries_of_tile + row;
      SeenKeys seen = seen_keys_of(task, tile.sequence, query);
      float lse = 0.0f, delta = 0.0f;
      if (query < task.query_length) {
        const std::int64_t of_query = tile.sequence * task.query_length + query;
        lse = values.lse[of_query][head];
        delta = values.delta[of_query][head];
        if (lse == minus_infinity) {  // it takes no part, whatever the ranges say
          seen = {0, 0};
          lse = 0.0f;
        }
      }
      shared.lse[s][row] = lse * log2_e;
      shared.delta[s][row] = delta;
      shared.seen[s][row] = seen;
      by_all = {max(by_all.first, seen.first), min(by_all.end, seen.end)};
    }
    by_all = {__reduce_max_sync(0xffffffffu, by_all.first),
              __reduce_min_sync(0xffffffffu, by_all.end)};
    if (lane == 0) shared.by_all[s] = by_all;
    arrive(&shared.full[s]);
    turn.advance();
  });
}

constexpr int num_scores = queries_of_tile / 2;  // of a thread

// One of the computing warpgroups, for its 64 keys.
template <int head_dim>
__device__ void differentiate(Shared<head_dim>& shared, const AttentionTask& task,
                              const GradientRows& dk, const GradientRows& dv, const KeyTile& tile,
                              int group) {
  const std::int32_t group_begin = group * rows_of_group;
  const std::int32_t group_key = tile.begin + group_begin;
  const std::int32_t first_key = group_key + place().row;
  const int col = place().col;
  const float scale = task.scale * log2_e;

  float dk_sums[head_dim / 2], dv_sums[head_dim / 2];
#pragma unroll
  for (int i = 0; i < head_dim / 2; ++i) {
    dk_sums[i] = 0.0f;
    dv_sums[i] = 0.0f;
  }
  const std::int32_t num_steps = task.group * (tile.queries.end - tile.queries.begin);
  if (num_steps > 0) {
    wait(&shared.keys_full, 0);
    Turn<stages> turn;
    int before = 0;  // the stage of the step before
    for (std::int32_t step = 0; step < num_steps; ++step) {
      float probs[num_scores], dprobs[num_scores];
      const int s = turn.stage;
      wait(&shared.full[s], turn.parity);
      begin_products();
      multiply_heads<head_dim, keys_of_tile>(probs, shared.k, group_begin, shared.q[s]);
      commit_products();
      // The sums of the step before must be there before dprobs take registers: theirs all at once
      // are more than a thread has.
      wait_for_products<1>();
      settle(dk_sums);
      settle(dv_sums);
      if (step > 0) give_back(&shared.empty[before]);
      begin_products();
      multiply_heads<head_dim, keys_of_tile>(dprobs, shared.v, group_begin, shared.dout[s]);
      commit_products();
      wait_for_products<1>();
      settle(probs);

#pragma unroll
      for (int j = 0; j < num_scores / 4; ++j) {
        const float2 lse = load_pair(&shared.lse[s][8 * j + col]);
#pragma unroll
        for (int i = 4 * j; i < 4 * j + 4; ++i)
          probs[i] = exp2_fast(fminf(fmaf(probs[i], scale, i % 2 == 0 ? -lse.x : -lse.y), 0.0f));
      }
      const SeenKeys by_all = shared.by_all[s];
      if (group_key < by_all.first || group_key + rows_of_group > by_all.end) {
#pragma unroll
        for (int i = 0; i < num_scores; ++i)
          if (!shared.seen[s][8 * (i / 4) + col + i % 2].has(first_key + 8 * (i / 2 % 2)))
            probs[i] = 0.0f;
      }
      wait_for_products<0>();
      settle(dprobs);
      // Packed as they come: probabilities and gradients need no registers twice.
      std::uint32_t weights[queries_of_tile / 16][4], dscores[queries_of_tile / 16][4];
#pragma unroll
      for (int n = 0; n < queries_of_tile / 16; ++n) {
        pack(weights[n], probs, n);
#pragma unroll
        for (int j = 2 * n; j < 2 * n + 2; ++j) {
          const float2 delta = load_pair(&shared.delta[s][8 * j + col]);
#pragma unroll
          for (int i = 4 * j; i < 4 * j + 4; ++i)
            dprobs[i] = probs[i] * (dprobs[i] - (i % 2 == 0 ? delta.x : delta.y));
        }
        pack(dscores[n], dprobs, n);
      }
      begin_products();
      multiply_weights(dv_sums, weights, shared.dout[s]);
      multiply_weights(dk_sums, dscores, shared.q[s]);
      commit_products();
      before = s;
      turn.advance();
    }
    wait_for_products<0>();
    settle(dk_sums);
    settle(dv_sums);
  }
  const std::int64_t row = tile.sequence * task.key_length;
  write_gradients(dk, row, first_key, task.key_length, tile.kv_head, task.head_dim, task.scale,
                  dk_sums);
  write_gradients(dv, row, first_key, task.key_length, tile.kv_head, task.head_dim, 1.0f, dv_sums);
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

template <int head_dim>
__global__ void __launch_bounds__(threads, 1)
    key_kernel(const __grid_constant__ BackwardMaps maps, AttentionTask task, RowValues values,
               GradientRows dk, GradientRows dv) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ std::byte dynamic[];
  auto& shared = shared_of<Shared<head_dim>>(dynamic);
  if (threadIdx.x == 0) {
    init_barrier(&shared.keys_full, 1);
    for (int s = 0; s < stages; ++s) {
      init_barrier(&shared.full[s], 1 + row_lanes);
      init_barrier(&shared.empty[s], computing_warps);
    }
    publish_barriers();
  }
  __syncthreads();
  const KeyTile tile = key_tile(task);
  const bool has_queries = tile.queries.begin < tile.queries.end;
  const auto group = static_cast<int>(threadIdx.x / warpgroup);
  if (group == 0) {
    give_registers<producer_registers>();
    if (threadIdx.x == 0 && has_queries) bring_tiles(shared, maps, task, tile);
    if (threadIdx.x / 32 == 1) bring_rows(shared, task, values, tile);
  } else {
    take_registers<computing_registers>();
    differentiate(shared, task, dk, dv, tile, group - 1);
  }
#endif
}

template <int head_dim>
void launch(const BackwardCall& call) {
  constexpr int bytes = shared_bytes<Shared<head_dim>>;
  const auto kernel = key_kernel<head_dim>;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
  const AttentionShape& s = call.shape;
  const std::int64_t blocks =
      s.num_sequences * s.num_kv_heads * num_tiles(s.key_length, keys_of_tile);
  const AttentionGradients& to = call.gradients;
  kernel<<<num_blocks(blocks, 1), threads, bytes, stream_of(call.q)>>>(
      maps_of(call, queries_of_tile, keys_of_tile), task_of(s, call.ranges), row_values(call),
      gradient_rows(to.dk, to.dkv_merge), gradient_rows(to.dv, to.dkv_merge));
  check_launch();
}

}  // namespace

void key_gradients_hopper(const BackwardCall& call) {
  if (call.shape.head_dim <= 64)
    launch<64>(call);
  else
    launch<128>(call);
}

}  // namespace switchyard::kernels::cuda
