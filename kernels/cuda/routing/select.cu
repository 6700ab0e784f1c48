#include "kernels/cuda/routing/select.hpp"

#include "kernels/cuda/routing/experts_per_lane.hpp"
#include "kernels/cuda/rows.cuh"
#include "tensor/error.hpp"

namespace switchyard::kernels::cuda {

namespace {

constexpr int threads = 128;
constexpr int tokens_per_block = threads / 32;
constexpr float lowest = -3.402823466e38f;

// Keys order scores as numbers: 0 is taken by nobody, 1 what has no order (NaN, -infinity), and the
// two zeros are one number.
constexpr std::uint32_t no_key = 0;
constexpr std::uint32_t unordered_key = 1;

__device__ std::uint32_t key_of(float score) {
  constexpr std::uint32_t sign = 0x80000000u;
  if (!(score >= lowest)) return unordered_key;
  if (score == 0) return sign;
  const std::uint32_t bits = __float_as_uint(score);
  return (bits & sign) != 0 ? ~bits : bits | sign;
}

// What a choice sees beside the scores.
struct CardSelection {
  const float* bias = nullptr;
  int num_groups = 1;
  int top_groups = 1;
  int group_size = 1;
  bool best_two = false;

  __device__ float value(const float* scores, int e) const {
    return bias == nullptr ? scores[e] : scores[e] + bias[e];
  }
};

// The key of a group: of its best expert, or of the sum of its best two, which has no order where
// one of them has none.
__device__ std::uint32_t group_key(const CardSelection& selection, const float* scores, int group) {
  std::uint32_t best = no_key, second = no_key;
  float best_value = 0, second_value = 0;
  for (int e = group * selection.group_size; e < (group + 1) * selection.group_size; ++e) {
    const float value = selection.value(scores, e);
    const std::uint32_t key = key_of(value);
    if (key > best) {
      second = best;
      second_value = best_value;
      best = key;
      best_value = value;
    } else if (key > second) {
      second = key;
      second_value = value;
    }
  }
  if (!selection.best_two || second == no_key) return best;
  return second == unordered_key ? unordered_key : key_of(best_value + second_value);
}

// The groups that a token may choose from, a bit each; a lane has a group.
__device__ std::uint32_t groups_of(const CardSelection& selection, const float* scores, int lane) {
  if (selection.top_groups >= selection.num_groups) return 0xffffffffu;
  std::uint32_t key = lane < selection.num_groups ? group_key(selection, scores, lane) : no_key;
  std::uint32_t groups = 0;
  for (int i = 0; i < selection.top_groups; ++i) {
    const std::uint32_t best = __reduce_max_sync(whole_warp, key);
    const int group = __ffs(static_cast<int>(__ballot_sync(whole_warp, key == best))) - 1;
    groups |= 1u << group;
    if (lane == group) key = no_key;
  }
  return groups;
}

__device__ std::uint32_t key_in(const CardSelection& selection, std::uint32_t groups,
                                const float* scores, int e) {
  if (selection.top_groups < selection.num_groups &&
      (groups >> (e / selection.group_size) & 1) == 0)
    return unordered_key;
  return key_of(selection.value(scores, e));
}

// The choices of a token, kept by lane j % 32 until a run of 32 is written at once.
struct ChoiceWriter {
  std::int32_t* indices;
  int top_k;
  int lane;
  std::int32_t mine = 0;

  __device__ void take(int j, std::int32_t expert) {
    if (j % 32 == lane) mine = expert;
    if (j % 32 != 31 && j != top_k - 1) return;
    const int first = j - j % 32;
    if (first + lane <= j) indices[first + lane] = mine;
  }
};

// A warp has a token; in each round it takes the largest key, of equal ones the lowest expert.
// per_lane: experts l, l + 32, ... of lane l are in registers.
template <int per_lane>
__global__ void select_kernel(CardRows<const float> scores, CardRows<std::int32_t> indices,
                              CardSelection selection, std::int64_t num_tokens, int num_experts,
                              int top_k) {
  const std::int64_t t = std::int64_t{blockIdx.x} * tokens_per_block + threadIdx.x / 32;
  if (t >= num_tokens) return;
  const int lane = threadIdx.x % 32;
  const std::uint32_t groups = groups_of(selection, scores[t], lane);
  std::uint32_t keys[per_lane];
#pragma unroll
  for (int i = 0; i < per_lane; ++i) {
    const int e = lane + 32 * i;
    keys[i] = e < num_experts ? key_in(selection, groups, scores[t], e) : no_key;
  }
  ChoiceWriter choices{indices[t], top_k, lane};
  for (int j = 0; j < top_k; ++j) {
    std::uint32_t best = no_key;
#pragma unroll
    for (int i = 0; i < per_lane; ++i) best = max(best, keys[i]);
    best = __reduce_max_sync(whole_warp, best);
    unsigned expert = 0x7fffffffu;
#pragma unroll
    for (int i = per_lane - 1; i >= 0; --i)
      if (keys[i] == best) expert = static_cast<unsigned>(lane + 32 * i);
    expert = __reduce_min_sync(whole_warp, expert);
#pragma unroll
    for (int i = 0; i < per_lane; ++i)
      if (static_cast<unsigned>(lane + 32 * i) == expert) keys[i] = no_key;
    choices.take(j, static_cast<std::int32_t>(expert));
  }
}

// The same for any number of experts: each round looks through all of them for the next in the
// order (key descending, expert ascending) after the one taken last.
template <>
__global__ void select_kernel<0>(CardRows<const float> scores, CardRows<std::int32_t> indices,
                                 CardSelection selection, std::int64_t num_tokens, int num_experts,
                                 int top_k) {
  const std::int64_t t = std::int64_t{blockIdx.x} * tokens_per_block + threadIdx.x / 32;
  if (t >= num_tokens) return;
  const int lane = threadIdx.x % 32;
  const float* score = scores[t];
  const std::uint32_t groups = groups_of(selection, score, lane);
  ChoiceWriter choices{indices[t], top_k, lane};
  std::uint32_t last_key = 0xffffffffu;
  int last_expert = -1;
  for (int j = 0; j < top_k; ++j) {
    std::uint32_t best = no_key;
    unsigned expert = 0x7fffffffu;
    for (int e = lane; e < num_experts; e += 32) {
      const std::uint32_t key = key_in(selection, groups, score, e);
      const bool is_left = key < last_key || (key == last_key && e > last_expert);
      if (!is_left || key <= best) continue;
      best = key;
      expert = static_cast<unsigned>(e);
    }
    const std::uint32_t best_of_all = __reduce_max_sync(whole_warp, best);
    expert = __reduce_min_sync(whole_warp, best == best_of_all ? expert : 0x7fffffffu);
    last_key = best_of_all;
    last_expert = static_cast<int>(expert);
    choices.take(j, last_expert);
  }
}

}  // namespace

void select_top_k(const TensorView& scores, const TensorView& indices, const Selection& selection) {
  expect(!selection.limits_groups() || selection.num_groups <= most_groups_on_card,
         "at most 32 groups of experts on a card");
  expect(selection.num_chosen == 0, "all choices on a card");
  const CardSelection on_card{selection.bias.empty() ? nullptr : pointer<float>(selection.bias),
                              static_cast<int>(selection.num_groups),
                              static_cast<int>(selection.top_groups),
                              static_cast<int>(scores.cols() / selection.num_groups),
                              selection.group_score == GroupScore::best_two};
  with_experts_per_lane(scores.cols(), [&](auto per_lane) {
    select_kernel<per_lane.value>
        <<<num_blocks(scores.rows(), tokens_per_block), threads, 0, stream_of(scores)>>>(
            card_rows<const float>(scores), card_rows<std::int32_t>(indices), on_card,
            scores.rows(), static_cast<int>(scores.cols()), static_cast<int>(indices.cols()));
  });
  check_launch();
}

}  // namespace switchyard::kernels::cuda
