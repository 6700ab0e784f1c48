#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/routing/score.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file once for every target.
#include <cmath>
#include <limits>

#include "kernels/cpu/parallel.hpp"
#include "kernels/cpu/routing/score.hpp"
#include "kernels/cpu/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace switchyard::kernels::cpu::HWY_NAMESPACE {
namespace {

// Writes scores and returns log sum exp. A NaN or +infinity among the logits makes all of them NaN.
inline float softmax_row(const float* logits, float* scores, std::int64_t num_experts) {
  const float maximum = max_of(logits, num_experts, std::numeric_limits<float>::lowest());
  const float sum = sum_of(num_experts, [=](auto d, std::int64_t i) HWY_ATTR {
    const auto e = exp_of(d, hn::Sub(load(d, logits + i), hn::Set(d, maximum)));
    store(d, e, scores + i);
    return e;
  });
  for_lanes(num_experts, [=](auto d, std::int64_t i) HWY_ATTR {
    store(d, hn::Div(load(d, scores + i), hn::Set(d, sum)), scores + i);
  });
  return maximum + std::log(sum);
}

void softmax_rows(const TensorView& logits, const TensorView& scores, const TensorView& lse,
                  std::int64_t begin, std::int64_t end) {
  const Rows<float> in = rows_of<float>(logits), out = rows_of<float>(scores);
  float* log_sums = lse.as<float>();
  for (std::int64_t t = begin; t < end; ++t)
    log_sums[t] = softmax_row(in[t], out[t], logits.cols());
}

// dlogits = scores * (dscores - <scores, dscores>) + 2 z_slope lse scores, dscores being `slopes`
// plus what the chosen experts have.
inline void backward_row(const float* dchosen, const std::int32_t* indices, std::int64_t top_k,
                         const float* slopes, float z_term, const float* scores, float* dlogits,
                         std::int64_t num_experts) {
  float dot = sum_of(num_experts, [=](auto d, std::int64_t i) HWY_ATTR {
    return hn::Mul(load(d, scores + i), load(d, slopes + i));
  });
  for (std::int64_t j = 0; j < top_k; ++j)
    if (indices[j] >= 0) dot += scores[indices[j]] * dchosen[j];
  const float shift = z_term - dot;
  for_lanes(num_experts, [=](auto d, std::int64_t i) HWY_ATTR {
    const auto slope = hn::Add(load(d, slopes + i), hn::Set(d, shift));
    store(d, hn::Mul(load(d, scores + i), slope), dlogits + i);
  });
  for (std::int64_t j = 0; j < top_k; ++j)
    if (indices[j] >= 0) dlogits[indices[j]] += scores[indices[j]] * dchosen[j];
}

void softmax_backward_rows(const TensorView& dchosen, const TensorView& indices,
                           const TensorView& slopes, float z_slope, const TensorView& scores,
                           const TensorView& lse, const TensorView& dlogits, std::int64_t begin,
                           std::int64_t end) {
  const Rows<float> chosen = rows_of<float>(dchosen), slope = rows_of<float>(slopes);
  const Rows<float> score = rows_of<float>(scores), out = rows_of<float>(dlogits);
  const Rows<std::int32_t> index = rows_of<std::int32_t>(indices);
  const float* log_sums = lse.as<float>();
  const std::int64_t sequence_length = scores.rows() / slopes.rows();
  for (std::int64_t t = begin; t < end; ++t)
    backward_row(chosen[t], index[t], indices.cols(), slope[t / sequence_length],
                 2 * z_slope * log_sums[t], score[t], out[t], scores.cols());
}

}  // namespace
}  // namespace switchyard::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace switchyard::kernels::cpu {

HWY_EXPORT(softmax_rows);
HWY_EXPORT(softmax_backward_rows);

void score_softmax(const TensorView& logits, const TensorView& scores, const TensorView& lse) {
  parallel_rows(logits.rows(), logits.cols(), [&](std::int64_t begin, std::int64_t end) {
    HWY_DYNAMIC_DISPATCH(softmax_rows)(logits, scores, lse, begin, end);
  });
}

void score_softmax_backward(const TensorView& dchosen, const TensorView& indices,
                            const TensorView& slopes, float z_slope, const TensorView& scores,
                            const TensorView& lse, const TensorView& dlogits) {
  parallel_rows(scores.rows(), scores.cols(), [&](std::int64_t begin, std::int64_t end) {
    HWY_DYNAMIC_DISPATCH(softmax_backward_rows)
    (dchosen, indices, slopes, z_slope, scores, lse, dlogits, begin, end);
  });
}

}  // namespace switchyard::kernels::cpu

#endif  // HWY_ONCE
