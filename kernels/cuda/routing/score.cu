#include "kernels/cuda/routing/score.hpp"

#include "kernels/cuda/routing/experts_per_lane.hpp"
#include "kernels/cuda/rows.cuh"

namespace switchyard::kernels::cuda {

namespace {

constexpr int threads = 128;
constexpr int tokens_per_block = threads / 32;
constexpr float lowest = -3.402823466e38f;

__device__ std::int64_t token_of_warp() {
  return std::int64_t{blockIdx.x} * tokens_per_block + threadIdx.x / 32;
}

// A warp has a token. per_lane: its experts are at most 32 per_lane, and lane l has l, l + 32, ...
// fmaxf passes NaN over; the exponential of a NaN makes the sum NaN, and so all scores.
template <int per_lane>
__global__ void softmax_kernel(CardRows<const float> logits, CardRows<float> scores, float* lse,
                               std::int64_t num_tokens, int num_experts) {
  const std::int64_t t = token_of_warp();
  if (t >= num_tokens) return;
  const int lane = threadIdx.x % 32;
  const float* in = logits[t];
  float* out = scores[t];
  float x[per_lane];
  float maximum = lowest;
#pragma unroll
  for (int i = 0; i < per_lane; ++i) {
    const int e = lane + 32 * i;
    x[i] = e < num_experts ? in[e] : -INFINITY;
    maximum = fmaxf(maximum, x[i]);
  }
  maximum = warp_max(maximum);
  float sum = 0;
#pragma unroll
  for (int i = 0; i < per_lane; ++i) {
    const int e = lane + 32 * i;
    if (e < num_experts) {
      x[i] = expf(x[i] - maximum);
      sum += x[i];
    }
  }
  sum = warp_sum(sum);
#pragma unroll
  for (int i = 0; i < per_lane; ++i) {
    const int e = lane + 32 * i;
    if (e < num_experts) out[e] = x[i] / sum;
  }
  if (lane == 0) lse[t] = maximum + logf(sum);
}

// The same for any number of experts; a lane reads again what it wrote itself.
template <>
__global__ void softmax_kernel<0>(CardRows<const float> logits, CardRows<float> scores, float* lse,
                                  std::int64_t num_tokens, int num_experts) {
  const std::int64_t t = token_of_warp();
  if (t >= num_tokens) return;
  const int lane = threadIdx.x % 32;
  const float* in = logits[t];
  float* out = scores[t];
  float maximum = lowest;
  for (int e = lane; e < num_experts; e += 32) maximum = fmaxf(maximum, in[e]);
  maximum = warp_max(maximum);
  float sum = 0;
  for (int e = lane; e < num_experts; e += 32) {
    const float x = expf(in[e] - maximum);
    out[e] = x;
    sum += x;
  }
  sum = warp_sum(sum);
  for (int e = lane; e < num_experts; e += 32) out[e] /= sum;
  if (lane == 0) lse[t] = maximum + logf(sum);
}

// The gradients of the scores that were chosen.
struct Chosen {
  CardRows<const float> gradients;
  CardRows<const std::int32_t> indices;
  std::int64_t top_k = 0;
};

// What expert e's score gets from the choices of a token: it looks through them, so that the order
// of the sum is that of the choices, and no two lanes write to one place.
__device__ float of_choices(const Chosen& chosen, std::int64_t t, int e, float gradient) {
  for (std::int64_t j = 0; j < chosen.top_k; ++j)
    if (chosen.indices[t][j] == e) gradient += chosen.gradients[t][j];
  return gradient;
}

template <int per_lane>
__global__ void backward_kernel(Chosen chosen, CardRows<const float> slopes,
                                std::int64_t sequence_length, float z_slope,
                                CardRows<const float> scores, const float* lse,
                                CardRows<float> dlogits, std::int64_t num_tokens, int num_experts) {
  const std::int64_t t = token_of_warp();
  if (t >= num_tokens) return;
  const int lane = threadIdx.x % 32;
  const float* score = scores[t];
  const float* slope = slopes[t / sequence_length];
  float p[per_lane];
  float d[per_lane];
#pragma unroll
  for (int i = 0; i < per_lane; ++i) {
    const int e = lane + 32 * i;
    p[i] = e < num_experts ? score[e] : 0.0f;
    d[i] = e < num_experts ? slope[e] : 0.0f;
  }
  for (std::int64_t j = 0; j < chosen.top_k; ++j) {
    const std::int32_t expert = chosen.indices[t][j];
    const float gradient = chosen.gradients[t][j];
#pragma unroll
    for (int i = 0; i < per_lane; ++i)
      if (expert == lane + 32 * i) d[i] += gradient;
  }
  float dot = 0;
#pragma unroll
  for (int i = 0; i < per_lane; ++i) dot += p[i] * d[i];
  const float shift = 2 * z_slope * lse[t] - warp_sum(dot);
#pragma unroll
  for (int i = 0; i < per_lane; ++i) {
    const int e = lane + 32 * i;
    if (e < num_experts) dlogits[t][e] = p[i] * (d[i] + shift);
  }
}

template <>
__global__ void backward_kernel<0>(Chosen chosen, CardRows<const float> slopes,
                                   std::int64_t sequence_length, float z_slope,
                                   CardRows<const float> scores, const float* lse,
                                   CardRows<float> dlogits, std::int64_t num_tokens,
                                   int num_experts) {
  const std::int64_t t = token_of_warp();
  if (t >= num_tokens) return;
  const int lane = threadIdx.x % 32;
  const float* score = scores[t];
  const float* slope = slopes[t / sequence_length];
  float dot = 0;
  for (int e = lane; e < num_experts; e += 32) dot += score[e] * of_choices(chosen, t, e, slope[e]);
  const float shift = 2 * z_slope * lse[t] - warp_sum(dot);
  for (int e = lane; e < num_experts; e += 32)
    dlogits[t][e] = score[e] * (of_choices(chosen, t, e, slope[e]) + shift);
}

}  // namespace

void score_softmax(const TensorView& logits, const TensorView& scores, const TensorView& lse) {
  with_experts_per_lane(logits.cols(), [&](auto per_lane) {
    softmax_kernel<per_lane.value>
        <<<num_blocks(logits.rows(), tokens_per_block), threads, 0, stream_of(logits)>>>(
            card_rows<const float>(logits), card_rows<float>(scores), pointer<float>(lse),
            logits.rows(), static_cast<int>(logits.cols()));
  });
  check_launch();
}

void score_softmax_backward(const TensorView& dchosen, const TensorView& indices,
                            const TensorView& slopes, float z_slope, const TensorView& scores,
                            const TensorView& lse, const TensorView& dlogits) {
  const Chosen chosen{card_rows<const float>(dchosen), card_rows<const std::int32_t>(indices),
                      indices.cols()};
  with_experts_per_lane(scores.cols(), [&](auto per_lane) {
    backward_kernel<per_lane.value>
        <<<num_blocks(scores.rows(), tokens_per_block), threads, 0, stream_of(scores)>>>(
            chosen, card_rows<const float>(slopes), scores.rows() / slopes.rows(), z_slope,
            card_rows<const float>(scores), pointer<float>(lse), card_rows<float>(dlogits),
            scores.rows(), static_cast<int>(scores.cols()));
  });
  check_launch();
}

}  // namespace switchyard::kernels::cuda
