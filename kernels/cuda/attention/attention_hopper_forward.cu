#include "kernels/cuda/attention/attention_hopper.cuh"
#include "kernels/cuda/attention/attention_hopper.hpp"

namespace switchyard::kernels::cuda {

namespace {

using namespace hopper;

constexpr int queries_of_tile = computing * rows_of_group;
constexpr int keys_of_tile = 128;
constexpr int stages = 2;

template <int head_dim>
struct alignas(1024) ForwardShared {
  std::byte q[queries_of_tile * head_dim * 2];
  std::byte k[stages][keys_of_tile * head_dim * 2];
  std::byte v[stages][keys_of_tile * head_dim * 2];
  std::uint64_t q_full;
  std::uint64_t k_full[stages], k_empty[stages];
  std::uint64_t v_full[stages], v_empty[stages];
};

template <class O>
struct ForwardResults {
  MatrixRows<O> out;
  MatrixRows<float> lse;
  bool merges = false;
};

// One tile of queries of one head.
struct QueryTile {
  std::int64_t sequence = 0;
  std::int32_t head = 0;
  std::int32_t begin = 0;
  TileRange keys;
};
__device__ QueryTile query_tile(const AttentionTask& task) {
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

template <int head_dim>
__device__ void bring_tiles(ForwardShared<head_dim>& shared, const CUtensorMap& q_map,
                            const CUtensorMap& k_map, const CUtensorMap& v_map,
                            const QueryTile& tile, std::int32_t kv_head) {
  constexpr int key_bytes = keys_of_tile * head_dim * 2;
  arrive_and_expect(&shared.q_full, queries_of_tile * head_dim * 2);
  copy_tile<head_dim, queries_of_tile>(shared.q, q_map, &shared.q_full, tile.head, tile.begin,
                                       tile.sequence);
  Turn<stages> turn;
  for (std::int32_t t = tile.keys.begin; t < tile.keys.end; ++t, turn.advance()) {
    const int s = turn.stage;
    wait(&shared.k_empty[s], turn.parity ^ 1);
    arrive_and_expect(&shared.k_full[s], key_bytes);
    copy_tile<head_dim, keys_of_tile>(shared.k[s], k_map, &shared.k_full[s], kv_head,
                                      t * keys_of_tile, tile.sequence);
    wait(&shared.v_empty[s], turn.parity ^ 1);
    arrive_and_expect(&shared.v_full[s], key_bytes);
    copy_tile<head_dim, keys_of_tile>(shared.v[s], v_map, &shared.v_full[s], kv_head,
                                      t * keys_of_tile, tile.sequence);
  }
}

// Softmax under way of a thread's two rows. base: the largest score so far, to base 2.
struct RowState {
  float base[2] = {minus_infinity, minus_infinity};
  float sum[2] = {0.0f, 0.0f};  // of the columns of this thread
};

// What the warpgroup's rows see: of this thread's, and of all.
struct GroupRows {
  SeenKeys seen[2];
  SeenKeys by_all;
};

constexpr int num_scores = keys_of_tile / 2;

__device__ inline void hide_unseen(float (&scores)[num_scores], const SeenKeys (&seen)[2],
                                   std::int32_t key_begin) {
  const int col = place().col;
#pragma unroll
  for (int i = 0; i < num_scores; ++i) {
    const std::int32_t key = key_begin + 8 * (i / 4) + col + i % 2;
    if (!seen[i / 2 % 2].has(key)) scores[i] = minus_infinity;
  }
}

// Scores become probabilities by the largest so far; correction: for what was summed by the largest
// before.
__device__ inline void take_scores(float (&scores)[num_scores], float scale, RowState& state,
                                   float (&correction)[2]) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float largest = minus_infinity;
#pragma unroll
    for (int j = 0; j < num_scores / 4; ++j)
      largest = fmaxf(largest, fmaxf(scores[4 * j + 2 * r], scores[4 * j + 2 * r + 1]));
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 1));
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 2));
    const float base = fmaxf(state.base[r], __fmul_rn(largest, scale));
    const float finite_base = base == minus_infinity ? 0.0f : base;
    correction[r] = exp2_fast(state.base[r] - finite_base);
    state.base[r] = base;
    // scale * score - base in one step is exact, the base is rounded: by more than a number's range
    // where scores are huge. There the scores are rounded likewise.
    const bool huge = fabsf(finite_base) > 0x1p22f;
    const float factor = huge ? 1.0f : scale;
    if (__any_sync(0xffffffffu, huge)) {
      const float first_factor = huge ? scale : 1.0f;
#pragma unroll
      for (int j = 0; j < num_scores / 4; ++j)
#pragma unroll
        for (int c = 0; c < 2; ++c)
          scores[4 * j + 2 * r + c] = __fmul_rn(scores[4 * j + 2 * r + c], first_factor);
    }
    float sum = 0.0f;
#pragma unroll
    for (int j = 0; j < num_scores / 4; ++j)
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        float& score = scores[4 * j + 2 * r + c];
        score = exp2_fast(fmaf(score, factor, -finite_base));
        sum += score;
      }
    state.sum[r] = fmaf(state.sum[r], correction[r], sum);
  }
}

template <int head_dim, class O>
__device__ void write_rows(const AttentionTask& task, const ForwardResults<O>& results,
                           const QueryTile& tile, std::int32_t first_row, const RowState& state,
                           const float (&out)[head_dim / 2]) {
  const int col = place().col;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const std::int32_t query = tile.begin + first_row + 8 * r;
    const bool exists = query < task.query_length;
    const std::int64_t row = tile.sequence * task.query_length + query;
    const float before = exists && results.merges ? results.lse[row][tile.head] : minus_infinity;
    __syncwarp();  // all have read it before one writes it
    float sum = state.sum[r];
    sum += __shfl_xor_sync(0xffffffffu, sum, 1);
    sum += __shfl_xor_sync(0xffffffffu, sum, 2);
    const RowOutput to = output_of(state.base[r], sum, results.merges, before);
    if (!exists || !to.writes) continue;
    O* target = results.out[row] + std::int64_t{tile.head} * task.head_dim + col;
#pragma unroll
    for (int j = 0; j < head_dim / 8; ++j) {
      if (8 * j >= task.head_dim) break;  // a multiple of 8
      float2 pair = make_float2(to.own * out[4 * j + 2 * r], to.own * out[4 * j + 2 * r + 1]);
      if (to.before != 0.0f) {
        const float2 there = load_pair(target + 8 * j);
        pair.x += to.before * there.x;
        pair.y += to.before * there.y;
      }
      store_pair(target + 8 * j, pair.x, pair.y);
    }
    if (col == 0) results.lse[row][tile.head] = to.lse;
  }
}

// One of the computing warpgroups, for its 64 queries: the scores of the next tile are under way
// while the one before is summed. takes_turns: the two issue their products one after the other, so
// that one's softmax runs beside the other's products.
template <int head_dim, bool takes_turns, class O>
__device__ void attend(ForwardShared<head_dim>& shared, const AttentionTask& task,
                       const ForwardResults<O>& results, const QueryTile& tile, int group) {
  const std::int32_t group_begin = group * rows_of_group;
  const std::int32_t first_row = group_begin + place().row;
  GroupRows rows;
  for (int r = 0; r < 2; ++r)
    rows.seen[r] = seen_keys_of(task, tile.sequence, tile.begin + first_row + 8 * r);
  const std::int64_t sequence_begin = tile.sequence * task.query_length;
  const std::int32_t last_query = task.query_length - 1;
  const std::int32_t group_last = tile.begin + group_begin + rows_of_group - 1;
  rows.by_all = {task.first[sequence_begin + min(group_last, last_query)],
                 task.end[sequence_begin + min(tile.begin + group_begin, last_query)]};
  const float scale = task.scale * log2_e;

  RowState state;
  float out[head_dim / 2];
#pragma unroll
  for (float& value : out) value = 0.0f;
  float scores[num_scores];
  std::uint32_t probs[keys_of_tile / 16][4];
  float correction[2];

  const auto softmax = [&](std::int32_t t) {
    const std::int32_t key_begin = t * keys_of_tile;
    if (key_begin < rows.by_all.first || key_begin + keys_of_tile > rows.by_all.end)
      hide_unseen(scores, rows.seen, key_begin);
    take_scores(scores, scale, state, correction);
  };
  const auto keep_probs = [&] {
#pragma unroll
    for (int n = 0; n < keys_of_tile / 16; ++n) pack(probs[n], scores, n);
  };

  if (tile.keys.begin < tile.keys.end) {
    wait(&shared.q_full, 0);
    Turn<stages> of_k;
    Turn<stages> of_v;
    wait(&shared.k_full[of_k.stage], of_k.parity);
    begin_products();
    multiply_heads<head_dim, queries_of_tile>(scores, shared.q, group_begin, shared.k[of_k.stage]);
    commit_products();
    wait_for_products<0>();
    settle(scores);
    give_back(&shared.k_empty[of_k.stage]);
    softmax(tile.keys.begin);
    keep_probs();

    const int own_turn = 1 + group, other_turn = 2 - group;
    if (takes_turns && group == 1) come(other_turn, computing * warpgroup);
    for (std::int32_t t = tile.keys.begin + 1; t < tile.keys.end; ++t) {
      of_k.advance();
      wait(&shared.k_full[of_k.stage], of_k.parity);
      if (takes_turns) meet(own_turn, computing * warpgroup);
      begin_products();
      multiply_heads<head_dim, queries_of_tile>(scores, shared.q, group_begin,
                                                shared.k[of_k.stage]);
      commit_products();
      wait(&shared.v_full[of_v.stage], of_v.parity);
      begin_products();
      multiply_weights(out, probs, shared.v[of_v.stage]);
      commit_products();
      if (takes_turns) come(other_turn, computing * warpgroup);
      wait_for_products<1>();
      settle(scores);
      give_back(&shared.k_empty[of_k.stage]);
      softmax(t);
      wait_for_products<0>();
      settle(out);
      give_back(&shared.v_empty[of_v.stage]);
      of_v.advance();
      keep_probs();
#pragma unroll
      for (int i = 0; i < head_dim / 2; ++i) out[i] *= correction[i / 2 % 2];
    }

    wait(&shared.v_full[of_v.stage], of_v.parity);
    begin_products();
    multiply_weights(out, probs, shared.v[of_v.stage]);
    commit_products();
    wait_for_products<0>();
    settle(out);
  }
  write_rows<head_dim>(task, results, tile, first_row, state, out);
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

template <int head_dim, bool takes_turns, class O>
__global__ void __launch_bounds__(threads, 1)
    forward_kernel(const __grid_constant__ CUtensorMap q_map,
                   const __grid_constant__ CUtensorMap k_map,
                   const __grid_constant__ CUtensorMap v_map, AttentionTask task,
                   ForwardResults<O> results) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ std::byte dynamic[];
  auto& shared = shared_of<ForwardShared<head_dim>>(dynamic);
  if (threadIdx.x == 0) {
    init_barrier(&shared.q_full, 1);
    for (int s = 0; s < stages; ++s) {
      init_barrier(&shared.k_full[s], 1);
      init_barrier(&shared.v_full[s], 1);
      init_barrier(&shared.k_empty[s], computing_warps);
      init_barrier(&shared.v_empty[s], computing_warps);
    }
    publish_barriers();
  }
  __syncthreads();
  const QueryTile tile = query_tile(task);
  const auto group = static_cast<int>(threadIdx.x / warpgroup);
  if (group == 0) {
    give_registers<producer_registers>();
    if (threadIdx.x == 0 && tile.keys.begin < tile.keys.end)
      bring_tiles(shared, q_map, k_map, v_map, tile, tile.head / task.group);
  } else {
    take_registers<computing_registers>();
    attend<head_dim, takes_turns>(shared, task, results, tile, group - 1);
  }
#endif
}

template <int head_dim, bool takes_turns, class O>
void launch(const AttentionShape& s, const TensorView& q, const TensorView& k, const TensorView& v,
            const KeyRanges& ranges, const TensorView& out, const TensorView& lse, Merge merge) {
  constexpr int bytes = shared_bytes<ForwardShared<head_dim>>;
  const auto kernel = forward_kernel<head_dim, takes_turns, O>;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
  const std::int64_t blocks =
      s.num_sequences * s.num_heads * num_tiles(s.query_length, queries_of_tile);
  const ForwardResults<O> results{rows_of<O>(out), rows_of<float>(lse),
                                  merge == Merge::with_before};
  kernel<<<num_blocks(blocks, 1), threads, bytes, stream_of(q)>>>(
      head_map(q, s.num_sequences, s.query_length, s.head_dim, queries_of_tile),
      head_map(k, s.num_sequences, s.key_length, s.head_dim, keys_of_tile),
      head_map(v, s.num_sequences, s.key_length, s.head_dim, keys_of_tile), task_of(s, ranges),
      results);
  check_launch();
}

}  // namespace

void attention_forward_hopper(const AttentionShape& shape, const TensorView& q, const TensorView& k,
                              const TensorView& v, const KeyRanges& ranges, const TensorView& out,
                              const TensorView& lse, Merge merge, bool takes_turns) {
  with_float_type(out.dtype, [&](auto result) {
    using O = decltype(result);
    const auto with_turns = [&]<bool turns>() {
      if (shape.head_dim <= 64)
        launch<64, turns, O>(shape, q, k, v, ranges, out, lse, merge);
      else
        launch<128, turns, O>(shape, q, k, v, ranges, out, lse, merge);
    };
    if (takes_turns)
      with_turns.template operator()<true>();
    else
      with_turns.template operator()<false>();
  });
}

}  // namespace switchyard::kernels::cuda
