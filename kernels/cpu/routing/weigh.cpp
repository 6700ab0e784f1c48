#include "kernels/cpu/routing/weigh.hpp"

#include "kernels/cpu/parallel.hpp"

namespace switchyard::kernels::cpu {

namespace {

inline void renormalize_row(float* weights, std::int64_t top_k) {
  float sum = 0;
  for (std::int64_t j = 0; j < top_k; ++j) sum += weights[j];
  if (sum == 0) return;  // all dropped, or all scores too small for a number
  for (std::int64_t j = 0; j < top_k; ++j) weights[j] /= sum;
}

void weigh_rows(const TensorView& scores, const TensorView& indices, const Weighing& weighing,
                const TensorView& weights, std::int64_t begin, std::int64_t end) {
  const Rows<float> score = rows_of<float>(scores), weight = rows_of<float>(weights);
  const Rows<std::int32_t> index = rows_of<std::int32_t>(indices);
  const std::int64_t top_k = indices.cols();
  for (std::int64_t t = begin; t < end; ++t) {
    for (std::int64_t j = 0; j < top_k; ++j)
      weight[t][j] = index[t][j] < 0 ? 0.0f : score[t][index[t][j]];
    if (weighing.renormalize) renormalize_row(weight[t], top_k);
    if (weighing.scale == 1) continue;
    for (std::int64_t j = 0; j < top_k; ++j) weight[t][j] *= weighing.scale;
  }
}

// What the weights' gradients are as seen from the chosen scores: w = c p / s with s their sum
// gives dp_j = c (dw_j - sum over i of dw_i p_i / s) / s.
struct ChosenGradient {
  float offset = 0;  // subtracted from each dw
  float factor = 1;
};

inline ChosenGradient through_renormalization(const float* dweights, const float* scores,
                                              const std::int32_t* indices, std::int64_t top_k) {
  float sum = 0, dot = 0;
  for (std::int64_t j = 0; j < top_k; ++j) {
    if (indices[j] < 0) continue;
    sum += scores[indices[j]];
    dot += dweights[j] * scores[indices[j]];
  }
  if (sum == 0) return {0, 0};
  return {dot / sum, 1 / sum};
}

void weigh_backward_rows(const TensorView& dweights, const TensorView& scores,
                         const TensorView& indices, const Weighing& weighing,
                         const TensorView& dchosen, std::int64_t begin, std::int64_t end) {
  const Rows<float> dw = rows_of<float>(dweights), score = rows_of<float>(scores);
  const Rows<float> out = rows_of<float>(dchosen);
  const Rows<std::int32_t> index = rows_of<std::int32_t>(indices);
  const std::int64_t top_k = indices.cols();
  for (std::int64_t t = begin; t < end; ++t) {
    const ChosenGradient gradient = weighing.renormalize
                                        ? through_renormalization(dw[t], score[t], index[t], top_k)
                                        : ChosenGradient{};
    for (std::int64_t j = 0; j < top_k; ++j)
      out[t][j] = index[t][j] < 0
                      ? 0.0f
                      : (dw[t][j] - gradient.offset) * (weighing.scale * gradient.factor);
  }
}

}  // namespace

void weigh(const TensorView& scores, const TensorView& indices, const Weighing& weighing,
           const TensorView& weights) {
  parallel_rows(indices.rows(), indices.cols(), [&](std::int64_t begin, std::int64_t end) {
    weigh_rows(scores, indices, weighing, weights, begin, end);
  });
}

void weigh_backward(const TensorView& dweights, const TensorView& scores, const TensorView& indices,
                    const Weighing& weighing, const TensorView& dchosen) {
  parallel_rows(indices.rows(), indices.cols(), [&](std::int64_t begin, std::int64_t end) {
    weigh_backward_rows(dweights, scores, indices, weighing, dchosen, begin, end);
  });
}

}  // namespace switchyard::kernels::cpu
