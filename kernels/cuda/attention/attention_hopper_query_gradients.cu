// dq: a block has 128 queries of a head and takes the keys they see tile by tile. Scores and their
// gradients lie in registers, and go from there into the product with the keys.
#include "kernels/cuda/attention/attention_hopper.cuh"
#include "kernels/cuda/attention/attention_hopper_backward.cuh"

namespace switchyard::kernels::cuda {

namespace {

using namespace hopper;

constexpr int queries_of_tile = computing * rows_of_group;
template <int keys_of_tile>
constexpr int stages = keys_of_tile == 128 ? 2 : 3;

template <int head_dim, int keys_of_tile>
struct alignas(1024) Shared {
  std::byte q[queries_of_tile * head_dim * 2];
  std::byte dout[queries_of_tile * head_dim * 2];
  std::byte k[stages<keys_of_tile>][keys_of_tile * head_dim * 2];
  std::byte v[stages<keys_of_tile>][keys_of_tile * head_dim * 2];
  std::uint64_t queries_full;
  std::uint64_t full[stages<keys_of_tile>], empty[stages<keys_of_tile>];
};

struct QueryTile {
  std::int64_t sequence = 0;
  std::int32_t head = 0;
  std::int32_t begin = 0;
  TileRange keys;
};
__device__ QueryTile query_tile(const AttentionTask& task, int keys_of_tile) {
  const auto num_heads = static_cast<unsigned>(task.num_heads);
  const auto tiles =
      static_cast<unsigned>((task.query_length + queries_of_tile - 1) / queries_of_tile);
  QueryTile tile;
  tile.head = static_cast<std::int32_t>(blockIdx.x % num_heads);
  tile.sequence = blockIdx.x / num_heads / tiles;
  // The last queries see most keys: they come first.
  tile.begin =
      static_cast<std::int32_t>(tiles - 1 - blockIdx.x / num_heads % tiles) * queries_of_tile;
  tile.keys = key_tiles_of(task, tile.sequence, tile.begin,
                           min(tile.begin + queries_of_tile, task.query_length), keys_of_tile);
  return tile;
}

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

template <int head_dim, int keys_of_tile>
__device__ void bring_tiles(Shared<head_dim, keys_of_tile>& shared, const BackwardMaps& maps,
                            const QueryTile& tile, std::int32_t kv_head) {
  constexpr int query_bytes = queries_of_tile * head_dim * 2,
                key_bytes = keys_of_tile * head_dim * 2;
  arrive_and_expect(&shared.queries_full, 2 * query_bytes);
  copy_tile<head_dim, queries_of_tile>(shared.q, maps.q, &shared.queries_full, tile.head,
                                       tile.begin, tile.sequence);
  copy_tile<head_dim, queries_of_tile>(shared.dout, maps.dout, &shared.queries_full, tile.head,
                                       tile.begin, tile.sequence);
  Turn<stages<keys_of_tile>> turn;
  for (std::int32_t t = tile.keys.begin; t < tile.keys.end; ++t, turn.advance()) {
    const int s = turn.stage;
    wait(&shared.empty[s], turn.parity ^ 1);
    arrive_and_expect(&shared.full[s], 2 * key_bytes);
    copy_tile<head_dim, keys_of_tile>(shared.k[s], maps.k, &shared.full[s], kv_head,
                                      t * keys_of_tile, tile.sequence);
    copy_tile<head_dim, keys_of_tile>(shared.v[s], maps.v, &shared.full[s], kv_head,
                                      t * keys_of_tile, tile.sequence);
  }
}

// Of a thread's two rows.
struct Rows {
  SeenKeys seen[2];
  float lse[2];  // to base 2
  float delta[2];
};
__device__ inline Rows rows_of_thread(const AttentionTask& task, const RowValues& values,
                                      const QueryTile& tile, std::int32_t first_row) {
  Rows rows;
  for (int r = 0; r < 2; ++r) {
    const std::int32_t query = tile.begin + first_row + 8 * r;
    rows.seen[r] = seen_keys_of(task, tile.sequence, query);
    rows.lse[r] = 0.0f;
    rows.delta[r] = 0.0f;
    if (query >= task.query_length) continue;
    const std::int64_t row = tile.sequence * task.query_length + query;
    const float lse = values.lse[row][tile.head];
    if (lse == minus_infinity)
      rows.seen[r] = {0, 0};
    else
      rows.lse[r] = lse * log2_e;
    rows.delta[r] = values.delta[row][tile.head];
  }
  return rows;
}

template <int head_dim, int keys_of_tile>
__device__ void differentiate(Shared<head_dim, keys_of_tile>& shared, const AttentionTask& task,
                              const RowValues& values, const GradientRows& dq,
                              const QueryTile& tile, int group) {
  const std::int32_t group_begin = group * rows_of_group;
  const std::int32_t first_row = group_begin + place().row;
  const Rows rows = rows_of_thread(task, values, tile, first_row);
  const float scale = task.scale * log2_e;
  // What this thread's two rows see both.
  const SeenKeys by_both{max(rows.seen[0].first, rows.seen[1].first),
                         min(rows.seen[0].end, rows.seen[1].end)};
  const int col = place().col;

  float sums[head_dim / 2];
#pragma unroll
  for (float& value : sums) value = 0.0f;
  if (tile.keys.begin < tile.keys.end) {
    wait(&shared.queries_full, 0);
    Turn<stages<keys_of_tile>> turn;
    int before = 0;  // the stage of the tile before
    for (std::int32_t t = tile.keys.begin; t < tile.keys.end; ++t) {
      float scores[keys_of_tile / 2], dprobs[keys_of_tile / 2];
      const int s = turn.stage;
      wait(&shared.full[s], turn.parity);
      begin_products();
      multiply_heads<head_dim, queries_of_tile>(scores, shared.q, group_begin, shared.k[s]);
      commit_products();
      // What is under way of the tile before must be there before dprobs take registers: all at
      // once is more than a thread has.
      wait_for_products<1>();
      settle(sums);
      if (t > tile.keys.begin) give_back(&shared.empty[before]);
      begin_products();
      multiply_heads<head_dim, queries_of_tile>(dprobs, shared.dout, group_begin, shared.v[s]);
      commit_products();
      wait_for_products<1>();
      settle(scores);

      const std::int32_t key_begin = t * keys_of_tile;
#pragma unroll
      for (int i = 0; i < keys_of_tile / 2; ++i)
        scores[i] = exp2_fast(fminf(fmaf(scores[i], scale, -rows.lse[i / 2 % 2]), 0.0f));
      if (__any_sync(0xffffffffu,
                     key_begin < by_both.first || key_begin + keys_of_tile > by_both.end)) {
#pragma unroll
        for (int i = 0; i < keys_of_tile / 2; ++i)
          if (!rows.seen[i / 2 % 2].has(key_begin + 8 * (i / 4) + col + i % 2)) scores[i] = 0.0f;
      }
      wait_for_products<0>();
      settle(dprobs);
      std::uint32_t dscores[keys_of_tile / 16][4];
#pragma unroll
      for (int n = 0; n < keys_of_tile / 16; ++n) {
#pragma unroll
        for (int i = 8 * n; i < 8 * n + 8; ++i)
          dprobs[i] = scores[i] * (dprobs[i] - rows.delta[i / 2 % 2]);
        pack(dscores[n], dprobs, n);
      }
      begin_products();
      multiply_weights(sums, dscores, shared.k[s]);
      commit_products();
      before = s;
      turn.advance();
    }
    wait_for_products<0>();
    settle(sums);
  }
  write_gradients(dq, tile.sequence * task.query_length, tile.begin + first_row, task.query_length,
                  tile.head, task.head_dim, task.scale, sums);
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

template <int head_dim, int keys_of_tile>
__global__ void __launch_bounds__(threads, 1)
    query_kernel(const __grid_constant__ BackwardMaps maps, AttentionTask task, RowValues values,
                 GradientRows dq) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ std::byte dynamic[];
  auto& shared = shared_of<Shared<head_dim, keys_of_tile>>(dynamic);
  if (threadIdx.x == 0) {
    init_barrier(&shared.queries_full, 1);
    for (int s = 0; s < stages<keys_of_tile>; ++s) {
      init_barrier(&shared.full[s], 1);
      init_barrier(&shared.empty[s], computing_warps);
    }
    publish_barriers();
  }
  __syncthreads();
  const QueryTile tile = query_tile(task, keys_of_tile);
  const auto group = static_cast<int>(threadIdx.x / warpgroup);
  if (group == 0) {
    give_registers<producer_registers>();
    if (threadIdx.x == 0 && tile.keys.begin < tile.keys.end)
      bring_tiles(shared, maps, tile, tile.head / task.group);
  } else {
    take_registers<computing_registers>();
    differentiate(shared, task, values, dq, tile, group - 1);
  }
#endif
}

template <int head_dim, int keys_of_tile>
void launch(const BackwardCall& call) {
  constexpr int bytes = shared_bytes<Shared<head_dim, keys_of_tile>>;
  const auto kernel = query_kernel<head_dim, keys_of_tile>;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
  const AttentionShape& s = call.shape;
  const std::int64_t blocks =
      s.num_sequences * s.num_heads * num_tiles(s.query_length, queries_of_tile);
  kernel<<<num_blocks(blocks, 1), threads, bytes, stream_of(call.q)>>>(
      maps_of(call, queries_of_tile, keys_of_tile), task_of(s, call.ranges), row_values(call),
      gradient_rows(call.gradients.dq, call.gradients.dq_merge));
  check_launch();
}

}  // namespace

void query_gradients_hopper(const BackwardCall& call, int keys_of_tile) {
  if (call.shape.head_dim <= 64)
    keys_of_tile == 128 ? launch<64, 128>(call) : launch<64, 64>(call);
  else
    keys_of_tile == 128 ? launch<128, 128>(call) : launch<128, 64>(call);
}

}  // namespace switchyard::kernels::cuda
