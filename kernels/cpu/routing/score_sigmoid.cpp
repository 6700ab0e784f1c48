#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/routing/score_sigmoid.cpp"
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

// exp(-|x|) does not overflow, and neither sign loses digits.
template <class D>
HWY_INLINE hn::Vec<D> sigmoid_of(D d, hn::Vec<D> x) {
  const auto one = hn::Set(d, 1.0f);
  const auto e = exp_of(d, hn::Neg(hn::Abs(x)));
  const auto numerator = hn::IfThenElse(hn::Lt(x, hn::Zero(d)), e, one);
  return hn::Div(numerator, hn::Add(one, e));
}

void sigmoid_rows(const TensorView& logits, const TensorView& scores, const TensorView& lse,
                  std::int64_t begin, std::int64_t end) {
  const Rows<float> in = rows_of<float>(logits), out = rows_of<float>(scores);
  float* log_sums = lse.as<float>();
  const std::int64_t num_experts = logits.cols();
  for (std::int64_t t = begin; t < end; ++t) {
    const float* logit = in[t];
    float* score = out[t];
    const float maximum = max_of(logit, num_experts, std::numeric_limits<float>::lowest());
    const float sum = sum_of(num_experts, [=](auto d, std::int64_t i) HWY_ATTR {
      const auto x = load(d, logit + i);
      store(d, sigmoid_of(d, x), score + i);
      return exp_of(d, hn::Sub(x, hn::Set(d, maximum)));
    });
    log_sums[t] = maximum + std::log(sum);
  }
}

void share_rows(const TensorView& x, const TensorView& shares, std::int64_t begin,
                std::int64_t end) {
  const Rows<float> in = rows_of<float>(x), out = rows_of<float>(shares);
  for (std::int64_t t = begin; t < end; ++t) {
    const float* from = in[t];
    float* to = out[t];
    const float sum =
        sum_of(x.cols(), [=](auto d, std::int64_t i) HWY_ATTR { return load(d, from + i); });
    for_lanes(x.cols(), [=](auto d, std::int64_t i) HWY_ATTR {
      store(d, hn::Div(load(d, from + i), hn::Set(d, sum)), to + i);
    });
  }
}

struct SigmoidRow {
  const float* logits;
  const float* scores;
  const float* slopes;
  float z_term;  // 2 z_slope lse
  float lse;
};

inline void backward_row(const SigmoidRow& row, const float* dchosen, const std::int32_t* indices,
                         std::int64_t top_k, float* dlogits, std::int64_t num_experts) {
  const float *scores = row.scores, *slopes = row.slopes, *logits = row.logits;
  const float sum =
      sum_of(num_experts, [=](auto d, std::int64_t i) HWY_ATTR { return load(d, scores + i); });
  const float dot = sum_of(num_experts, [=](auto d, std::int64_t i) HWY_ATTR {
    return hn::Mul(load(d, scores + i), load(d, slopes + i));
  });
  const float mean = dot / sum, z_term = row.z_term, lse = row.lse;
  for_lanes(num_experts, [=](auto d, std::int64_t i) HWY_ATTR {
    const auto score = load(d, scores + i);
    const auto slope = hn::Div(hn::Sub(load(d, slopes + i), hn::Set(d, mean)), hn::Set(d, sum));
    const auto through = hn::Mul(hn::Mul(score, hn::Sub(hn::Set(d, 1.0f), score)), slope);
    const auto share = exp_of(d, hn::Sub(load(d, logits + i), hn::Set(d, lse)));
    store(d, hn::MulAdd(hn::Set(d, z_term), share, through), dlogits + i);
  });
  for (std::int64_t j = 0; j < top_k; ++j)
    if (indices[j] >= 0)
      dlogits[indices[j]] += scores[indices[j]] * (1 - scores[indices[j]]) * dchosen[j];
}

void sigmoid_backward_rows(const TensorView& dchosen, const TensorView& indices,
                           const TensorView& slopes, float z_slope, const TensorView& logits,
                           const TensorView& scores, const TensorView& lse,
                           const TensorView& dlogits, std::int64_t begin, std::int64_t end) {
  const Rows<float> chosen = rows_of<float>(dchosen), slope = rows_of<float>(slopes);
  const Rows<float> logit = rows_of<float>(logits), score = rows_of<float>(scores);
  const Rows<float> out = rows_of<float>(dlogits);
  const Rows<std::int32_t> index = rows_of<std::int32_t>(indices);
  const float* log_sums = lse.as<float>();
  const std::int64_t sequence_length = scores.rows() / slopes.rows();
  for (std::int64_t t = begin; t < end; ++t)
    backward_row(
        {logit[t], score[t], slope[t / sequence_length], 2 * z_slope * log_sums[t], log_sums[t]},
        chosen[t], index[t], indices.cols(), out[t], scores.cols());
}

}  // namespace
}  // namespace switchyard::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace switchyard::kernels::cpu {

HWY_EXPORT(sigmoid_rows);
HWY_EXPORT(share_rows);
HWY_EXPORT(sigmoid_backward_rows);

void score_sigmoid(const TensorView& logits, const TensorView& scores, const TensorView& lse) {
  parallel_rows(logits.rows(), logits.cols(), [&](std::int64_t begin, std::int64_t end) {
    HWY_DYNAMIC_DISPATCH(sigmoid_rows)(logits, scores, lse, begin, end);
  });
}

void divide_by_row_sums(const TensorView& x, const TensorView& out) {
  parallel_rows(x.rows(), x.cols(), [&](std::int64_t begin, std::int64_t end) {
    HWY_DYNAMIC_DISPATCH(share_rows)(x, out, begin, end);
  });
}

void score_sigmoid_backward(const TensorView& dchosen, const TensorView& indices,
                            const TensorView& slopes, float z_slope, const TensorView& logits,
                            const TensorView& scores, const TensorView& lse,
                            const TensorView& dlogits) {
  parallel_rows(scores.rows(), scores.cols(), [&](std::int64_t begin, std::int64_t end) {
    HWY_DYNAMIC_DISPATCH(sigmoid_backward_rows)
    (dchosen, indices, slopes, z_slope, logits, scores, lse, dlogits, begin, end);
  });
}

}  // namespace switchyard::kernels::cpu

#endif  // HWY_ONCE
