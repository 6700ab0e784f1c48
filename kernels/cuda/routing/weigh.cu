#include "kernels/cuda/routing/weigh.hpp"

#include "kernels/cuda/rows.cuh"

namespace switchyard::kernels::cuda {

namespace {

constexpr int threads = 128;

struct Choices {
  CardRows<const float> scores;
  CardRows<const std::int32_t> indices;
  std::int64_t num_tokens = 0;
  std::int64_t num_experts = 0;
  std::int64_t top_k = 0;
  bool renormalize = false;
  float scale = 1;
};

// The score of choice j; 0 of a dropped one.
__device__ float score_of(const Choices& choices, std::int64_t t, std::int64_t j) {
  const std::int32_t expert = choices.indices[t][j];
  expect_index(expert, choices.num_experts);
  return expert < 0 ? 0.0f : choices.scores[t][expert];
}

// A thread has a token: sums over its choices are in their order, as on the CPU.
__global__ void weigh_kernel(Choices choices, CardRows<float> weights) {
  const std::int64_t t = std::int64_t{blockIdx.x} * threads + threadIdx.x;
  if (t >= choices.num_tokens) return;
  float* weight = weights[t];
  float sum = 0;
  for (std::int64_t j = 0; j < choices.top_k; ++j) {
    const float score = score_of(choices, t, j);
    weight[j] = score;
    sum += score;
  }
  if (choices.renormalize && sum != 0)  // 0: all dropped, or all scores too small for a number
    for (std::int64_t j = 0; j < choices.top_k; ++j) weight[j] /= sum;
  if (choices.scale != 1)
    for (std::int64_t j = 0; j < choices.top_k; ++j) weight[j] *= choices.scale;
}

// dchosen may be dweights: both sums are taken before anything is written.
__global__ void backward_kernel(CardRows<const float> dweights, Choices choices,
                                CardRows<float> dchosen) {
  const std::int64_t t = std::int64_t{blockIdx.x} * threads + threadIdx.x;
  if (t >= choices.num_tokens) return;
  const float* dweight = dweights[t];
  float offset = 0;
  float factor = 1;
  if (choices.renormalize) {
    float sum = 0;
    float dot = 0;
    for (std::int64_t j = 0; j < choices.top_k; ++j) {
      if (choices.indices[t][j] < 0) continue;
      const float score = score_of(choices, t, j);
      sum += score;
      dot += dweight[j] * score;
    }
    offset = sum == 0 ? 0.0f : dot / sum;
    factor = sum == 0 ? 0.0f : 1 / sum;
  }
  for (std::int64_t j = 0; j < choices.top_k; ++j)
    dchosen[t][j] =
        choices.indices[t][j] < 0 ? 0.0f : (dweight[j] - offset) * (choices.scale * factor);
}

Choices choices_of(const TensorView& scores, const TensorView& indices, const Weighing& weighing) {
  return {card_rows<const float>(scores),
          card_rows<const std::int32_t>(indices),
          indices.rows(),
          scores.cols(),
          indices.cols(),
          weighing.renormalize,
          weighing.scale};
}

}  // namespace

void weigh(const TensorView& scores, const TensorView& indices, const Weighing& weighing,
           const TensorView& weights) {
  weigh_kernel<<<num_blocks(indices.rows(), threads), threads, 0, stream_of(scores)>>>(
      choices_of(scores, indices, weighing), card_rows<float>(weights));
  check_launch();
}

void weigh_backward(const TensorView& dweights, const TensorView& scores, const TensorView& indices,
                    const Weighing& weighing, const TensorView& dchosen) {
  backward_kernel<<<num_blocks(indices.rows(), threads), threads, 0, stream_of(scores)>>>(
      card_rows<const float>(dweights), choices_of(scores, indices, weighing),
      card_rows<float>(dchosen));
  check_launch();
}

}  // namespace switchyard::kernels::cuda
