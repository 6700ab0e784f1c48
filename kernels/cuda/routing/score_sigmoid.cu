#include "kernels/cuda/routing/score.hpp"
#include "kernels/cuda/rows.cuh"

namespace switchyard::kernels::cuda {

namespace {

constexpr int threads = 128;
constexpr int tokens_per_block = threads / 32;
constexpr float lowest = -3.402823466e38f;

__device__ std::int64_t token_of_warp() {
  return std::int64_t{blockIdx.x} * tokens_per_block + threadIdx.x / 32;
}

// exp(-|x|) does not overflow, and neither sign loses digits.
__device__ float sigmoid_of(float x) {
  const float e = expf(-fabsf(x));
  return (x < 0 ? e : 1.0f) / (1.0f + e);
}

// A warp has a token, and lane l its experts l, l + 32, ...
__global__ void sigmoid_kernel(CardRows<const float> logits, CardRows<float> scores, float* lse,
                               std::int64_t num_tokens, int num_experts) {
  const std::int64_t t = token_of_warp();
  if (t >= num_tokens) return;
  const int lane = threadIdx.x % 32;
  const float* in = logits[t];
  float maximum = lowest;
  for (int e = lane; e < num_experts; e += 32) maximum = fmaxf(maximum, in[e]);
  maximum = warp_max(maximum);
  float sum = 0;
  for (int e = lane; e < num_experts; e += 32) {
    scores[t][e] = sigmoid_of(in[e]);
    sum += expf(in[e] - maximum);
  }
  sum = warp_sum(sum);
  if (lane == 0) lse[t] = maximum + logf(sum);
}

__global__ void share_kernel(CardRows<const float> x, CardRows<float> shares,
                             std::int64_t num_tokens, int num_experts) {
  const std::int64_t t = token_of_warp();
  if (t >= num_tokens) return;
  const int lane = threadIdx.x % 32;
  float sum = 0;
  for (int e = lane; e < num_experts; e += 32) sum += x[t][e];
  sum = warp_sum(sum);
  for (int e = lane; e < num_experts; e += 32) shares[t][e] = x[t][e] / sum;
}

struct Chosen {
  CardRows<const float> gradients;
  CardRows<const std::int32_t> indices;
  std::int64_t top_k = 0;
};

// Each expert looks through the choices of its token, so that no two lanes write to one place.
__global__ void backward_kernel(Chosen chosen, CardRows<const float> slopes,
                                std::int64_t sequence_length, float z_slope,
                                CardRows<const float> logits, CardRows<const float> scores,
                                const float* lse, CardRows<float> dlogits, std::int64_t num_tokens,
                                int num_experts) {
  const std::int64_t t = token_of_warp();
  if (t >= num_tokens) return;
  const int lane = threadIdx.x % 32;
  const float* score = scores[t];
  const float* slope = slopes[t / sequence_length];
  float sum = 0;
  float dot = 0;
  for (int e = lane; e < num_experts; e += 32) {
    sum += score[e];
    dot += score[e] * slope[e];
  }
  sum = warp_sum(sum);
  const float mean = warp_sum(dot) / sum;
  for (int e = lane; e < num_experts; e += 32) {
    float dscore = (slope[e] - mean) / sum;
    for (std::int64_t j = 0; j < chosen.top_k; ++j)
      if (chosen.indices[t][j] == e) dscore += chosen.gradients[t][j];
    dlogits[t][e] =
        score[e] * (1 - score[e]) * dscore + 2 * z_slope * lse[t] * expf(logits[t][e] - lse[t]);
  }
}

}  // namespace

void score_sigmoid(const TensorView& logits, const TensorView& scores, const TensorView& lse) {
  sigmoid_kernel<<<num_blocks(logits.rows(), tokens_per_block), threads, 0, stream_of(logits)>>>(
      card_rows<const float>(logits), card_rows<float>(scores), pointer<float>(lse), logits.rows(),
      static_cast<int>(logits.cols()));
  check_launch();
}

void divide_by_row_sums(const TensorView& x, const TensorView& out) {
  share_kernel<<<num_blocks(x.rows(), tokens_per_block), threads, 0, stream_of(x)>>>(
      card_rows<const float>(x), card_rows<float>(out), x.rows(), static_cast<int>(x.cols()));
  check_launch();
}

void score_sigmoid_backward(const TensorView& dchosen, const TensorView& indices,
                            const TensorView& slopes, float z_slope, const TensorView& logits,
                            const TensorView& scores, const TensorView& lse,
                            const TensorView& dlogits) {
  const Chosen chosen{card_rows<const float>(dchosen), card_rows<const std::int32_t>(indices),
                      indices.cols()};
  backward_kernel<<<num_blocks(scores.rows(), tokens_per_block), threads, 0, stream_of(scores)>>>(
      chosen, card_rows<const float>(slopes), scores.rows() / slopes.rows(), z_slope,
      card_rows<const float>(logits), card_rows<const float>(scores), pointer<float>(lse),
      card_rows<float>(dlogits), scores.rows(), static_cast<int>(scores.cols()));
  check_launch();
}

}  // namespace switchyard::kernels::cuda
