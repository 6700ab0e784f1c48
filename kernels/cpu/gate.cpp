#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/gate.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file once for every target.
#include <cmath>
#include <limits>

#include "kernels/cpu/gate.hpp"
#include "kernels/cpu/parallel.hpp"
#include "kernels/cpu/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace switchyard::kernels::cpu::HWY_NAMESPACE {
namespace {

// Writes probs and returns log sum exp. A NaN or +infinity among the logits makes all of them NaN.
inline float softmax_row(const float* logits, float* probs, std::int64_t num_experts) {
  const float maximum = max_of(logits, num_experts, std::numeric_limits<float>::lowest());
  const float sum = sum_of(num_experts, [=](auto d, std::int64_t i) HWY_ATTR {
    const auto e = exp_of(d, hn::Sub(load(d, logits + i), hn::Set(d, maximum)));
    store(d, e, probs + i);
    return e;
  });
  for_lanes(num_experts, [=](auto d, std::int64_t i) HWY_ATTR {
    store(d, hn::Div(load(d, probs + i), hn::Set(d, sum)), probs + i);
  });
  return maximum + std::log(sum);
}

// The first place of the largest of `probs`, or -1 if none equals it (NaN).
inline std::int64_t largest_of(const float* probs, std::int64_t num_experts) {
  const float largest = max_of(probs, num_experts, -1.0f);
  const Lanes d;
  const auto wanted = hn::Set(d, largest);
  std::int64_t e = 0;
  for (; e + lanes_of(d) <= num_experts; e += lanes_of(d)) {
    const auto place = hn::FindFirstTrue(d, hn::Eq(load(d, probs + e), wanted));
    if (place >= 0) return e + static_cast<std::int64_t>(place);
  }
  for (; e < num_experts; ++e)
    if (probs[e] == largest) return e;
  return -1;
}

// One pass for each choice; the chosen probabilities are set below all others meanwhile. Of a row
// of NaN the first experts are chosen, so that every index is legal, and the weights are NaN.
inline void choose_row(float* probs, std::int64_t num_experts, std::int32_t* indices,
                       float* weights, std::int64_t top_k) {
  for (std::int64_t j = 0; j < top_k; ++j) {
    const std::int64_t expert = largest_of(probs, num_experts);
    const std::int64_t legal = expert < 0 ? j : expert;
    indices[j] = static_cast<std::int32_t>(legal);
    weights[j] = probs[legal];
    if (expert >= 0) probs[expert] = -1.0f;
  }
  for (std::int64_t j = 0; j < top_k; ++j) probs[indices[j]] = weights[j];
}

inline void renormalize_row(float* weights, std::int64_t top_k) {
  float sum = 0;
  for (std::int64_t j = 0; j < top_k; ++j) sum += weights[j];
  for (std::int64_t j = 0; j < top_k; ++j) weights[j] /= sum;
}

void forward_rows(const TensorView& logits, bool renormalize, const TensorView& probs,
                  const TensorView& lse, const TensorView& indices, const TensorView& weights,
                  std::int64_t begin, std::int64_t end) {
  const Rows<float> in = rows_of<float>(logits), p = rows_of<float>(probs);
  const Rows<float> w = rows_of<float>(weights);
  const Rows<std::int32_t> index = rows_of<std::int32_t>(indices);
  float* log_sums = lse.as<float>();
  const std::int64_t num_experts = logits.cols(), top_k = indices.cols();
  for (std::int64_t t = begin; t < end; ++t) {
    log_sums[t] = softmax_row(in[t], p[t], num_experts);
    choose_row(p[t], num_experts, index[t], w[t], top_k);
    if (renormalize) renormalize_row(w[t], top_k);
  }
}

// What the weights' gradients are as seen from the chosen probabilities: w = p / s with s their sum
// gives dp_j = (dw_j - sum over i of dw_i w_i) / s.
struct ChosenGradient {
  float offset = 0;  // subtracted from each dw
  float factor = 1;
  float at(float dweight) const { return (dweight - offset) * factor; }
};

inline ChosenGradient through_renormalization(const float* dweights, const float* probs,
                                              const std::int32_t* indices, std::int64_t top_k) {
  float sum = 0, dot = 0;
  for (std::int64_t j = 0; j < top_k; ++j) {
    sum += probs[indices[j]];
    dot += dweights[j] * probs[indices[j]];
  }
  return {dot / sum, 1 / sum};
}

// dlogits = probs * (dprobs - <probs, dprobs>) + 2 z_slope lse probs, dprobs being `slopes` plus
// the chosen experts' share.
inline void backward_row(const float* dweights, const float* probs, const std::int32_t* indices,
                         std::int64_t top_k, ChosenGradient chosen, const float* slopes,
                         float z_term, float* dlogits, std::int64_t num_experts) {
  float dot = sum_of(num_experts, [=](auto d, std::int64_t i) HWY_ATTR {
    return hn::Mul(load(d, probs + i), load(d, slopes + i));
  });
  for (std::int64_t j = 0; j < top_k; ++j) dot += probs[indices[j]] * chosen.at(dweights[j]);
  const float shift = z_term - dot;
  for_lanes(num_experts, [=](auto d, std::int64_t i) HWY_ATTR {
    const auto slope = hn::Add(load(d, slopes + i), hn::Set(d, shift));
    store(d, hn::Mul(load(d, probs + i), slope), dlogits + i);
  });
  for (std::int64_t j = 0; j < top_k; ++j)
    dlogits[indices[j]] += probs[indices[j]] * chosen.at(dweights[j]);
}

void backward_rows(const TensorView& dweights, const TensorView& probs, const TensorView& lse,
                   const TensorView& indices, bool renormalize, const TensorView& prob_slopes,
                   float z_slope, const TensorView& dlogits, std::int64_t begin, std::int64_t end) {
  const Rows<float> dw = rows_of<float>(dweights), p = rows_of<float>(probs);
  const Rows<float> slopes = rows_of<float>(prob_slopes), out = rows_of<float>(dlogits);
  const Rows<std::int32_t> index = rows_of<std::int32_t>(indices);
  const float* log_sums = lse.as<float>();
  const std::int64_t sequence_length = probs.rows() / prob_slopes.rows();
  const std::int64_t num_experts = probs.cols(), top_k = indices.cols();
  for (std::int64_t t = begin; t < end; ++t) {
    const ChosenGradient chosen =
        renormalize ? through_renormalization(dw[t], p[t], index[t], top_k) : ChosenGradient{};
    backward_row(dw[t], p[t], index[t], top_k, chosen, slopes[t / sequence_length],
                 2 * z_slope * log_sums[t], out[t], num_experts);
  }
}

}  // namespace
}  // namespace switchyard::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include "kernels/cpu/elementwise.hpp"

namespace switchyard::kernels::cpu {

HWY_EXPORT(forward_rows);
HWY_EXPORT(backward_rows);

void gate_forward(const TensorView& logits, bool renormalize, const TensorView& probs,
                  const TensorView& lse, const TensorView& indices, const TensorView& weights) {
  parallel_rows(logits.rows(), logits.cols(), [&](std::int64_t begin, std::int64_t end) {
    HWY_DYNAMIC_DISPATCH(forward_rows)
    (logits, renormalize, probs, lse, indices, weights, begin, end);
  });
}

void gate_backward(const TensorView& dweights, const TensorView& probs, const TensorView& lse,
                   const TensorView& indices, bool renormalize, const TensorView& prob_slopes,
                   float z_slope, const TensorView& dlogits) {
  parallel_rows(probs.rows(), probs.cols(), [&](std::int64_t begin, std::int64_t end) {
    HWY_DYNAMIC_DISPATCH(backward_rows)
    (dweights, probs, lse, indices, renormalize, prob_slopes, z_slope, dlogits, begin, end);
  });
}

void gate_statistics(const TensorView& probs, const TensorView& indices,
                     std::int64_t sequence_length, const TensorView& counts,
                     const TensorView& prob_sums) {
  const Rows<float> p = rows_of<float>(probs), sums = rows_of<float>(prob_sums);
  const Rows<std::int32_t> index = rows_of<std::int32_t>(indices);
  const Rows<std::int32_t> count = rows_of<std::int32_t>(counts);
  const std::int64_t num_experts = probs.cols(), top_k = indices.cols();
  parallel_blocks(counts.rows(), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t s = begin; s < end; ++s) {
      std::fill_n(count[s], num_experts, 0);
      std::fill_n(sums[s], num_experts, 0.0f);
      for (std::int64_t t = s * sequence_length; t < (s + 1) * sequence_length; ++t) {
        accumulate_span(sums[s], p[t], num_experts);
        for (std::int64_t j = 0; j < top_k; ++j) ++count[s][index[t][j]];
      }
    }
  });
}

}  // namespace switchyard::kernels::cpu

#endif  // HWY_ONCE
