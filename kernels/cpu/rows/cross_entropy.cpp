#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/rows/cross_entropy.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file once for every target.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/parallel.hpp"
#include "kernels/cpu/rows/cross_entropy.hpp"
#include "kernels/cpu/simd-inl.hpp"
#include "kernels/rows/cross_entropy.hpp"

HWY_BEFORE_NAMESPACE();
namespace switchyard::kernels::cpu::HWY_NAMESPACE {
namespace {

// sum over i of exp(x[i]) = exp(maximum) * sum. A NaN in x makes `sum` NaN.
struct ExpSum {
  float maximum;
  double sum;
};

inline float sum_of_exp(const float* x, float shift, std::int64_t n) {
  return sum_of(n, [=](auto d, std::int64_t i)
                       HWY_ATTR { return exp_of(d, hn::Sub(load(d, x + i), hn::Set(d, shift))); });
}

inline ExpSum exp_sum_of(const float* x, std::int64_t n) {
  constexpr std::int64_t block = 2048;  // 8 KiB: read twice, the second time from the L1 cache
  ExpSum running{std::numeric_limits<float>::lowest(), 0.0};
  for (std::int64_t begin = 0; begin < n; begin += block) {
    const std::int64_t size = std::min(block, n - begin);
    const float maximum = max_of(x + begin, size, running.maximum);
    if (maximum != running.maximum)
      running = {maximum, running.sum * std::exp(static_cast<double>(running.maximum) - maximum)};
    running.sum += static_cast<double>(sum_of_exp(x + begin, maximum, size));
  }
  return running;
}

template <class T>
void gradient_row(const float* logits, float shift, float factor, T* dlogits, std::int64_t n) {
  for_lanes(n, [=](auto d, std::int64_t i) HWY_ATTR {
    const auto e = exp_of(d, hn::Sub(load(d, logits + i), hn::Set(d, shift)));
    store(d, hn::Mul(e, hn::Set(d, factor)), dlogits + i);
  });
}

inline void assign(float* to, float value) {
  *to = value;
}
inline void assign(BFloat16* to, float value) {
  *to = to_bf16(value);
}

// Returns the loss; writes the gradient unless `dlogits` is null. `dlogits` may be `logits`.
template <class T>
float loss_row(const float* logits, std::int32_t target, std::int64_t vocab_size,
               std::int64_t num_columns, float gradient_scale, T* dlogits) {
  const ExpSum total = exp_sum_of(logits, vocab_size);
  const double above = static_cast<double>(logits[target]) - total.maximum;
  if (dlogits != nullptr) {
    gradient_row(logits, total.maximum, static_cast<float>(gradient_scale / total.sum), dlogits,
                 vocab_size);
    assign(dlogits + target,
           static_cast<float>(gradient_scale * (std::exp(above) / total.sum - 1)));
    for (std::int64_t i = vocab_size; i < num_columns; ++i) assign(dlogits + i, 0.0f);
  }
  return static_cast<float>(std::log(total.sum) - above);
}

// A row that counts for nothing: loss 0 and, if it is asked for, gradient 0.
template <class T>
float ignored_row(std::int64_t num_columns, T* dlogits) {
  if (dlogits != nullptr) std::fill_n(dlogits, num_columns, T{});
  return 0.0f;
}

// What a row is to learn, and how much it counts.
struct Aims {
  const std::int32_t* targets;
  const float* weights;  // null: 1 each

  float weight(std::int64_t row) const {
    if (targets[row] == no_target) return 0;
    return weights == nullptr ? 1.0f : weights[row];
  }
};

template <class T>
void loss_rows(const TensorView& logits, Aims aims, std::int64_t vocab_size, float gradient_scale,
               float* losses, const TensorView& dlogits, std::int64_t begin, std::int64_t end) {
  const Rows<float> in = rows_of<float>(logits);
  const bool differentiates = !dlogits.empty();
  const Rows<T> out = differentiates ? rows_of<T>(dlogits) : Rows<T>{nullptr, 0};
  for (std::int64_t t = begin; t < end; ++t) {
    const float weight = aims.weight(t);
    T* const gradient = differentiates ? out[t] : nullptr;
    losses[t] = weight == 0 ? ignored_row(logits.cols(), gradient)
                            : weight * loss_row(in[t], aims.targets[t], vocab_size, logits.cols(),
                                                gradient_scale * weight, gradient);
  }
}

void losses_of(const TensorView& logits, const std::int32_t* targets, const float* weights,
               std::int64_t vocab_size, float gradient_scale, float* losses,
               const TensorView& dlogits, std::int64_t begin, std::int64_t end) {
  const bool as_bf16 = !dlogits.empty() && dlogits.dtype == DType::bf16;
  const auto rows = as_bf16 ? loss_rows<BFloat16> : loss_rows<float>;
  rows(logits, {targets, weights}, vocab_size, gradient_scale, losses, dlogits, begin, end);
}

}  // namespace
}  // namespace switchyard::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include "tensor/error.hpp"

namespace switchyard::kernels::cpu {

HWY_EXPORT(losses_of);

void softmax_cross_entropy(const TensorView& logits, const TensorView& targets,
                           std::int64_t vocab_size, float gradient_scale, const TensorView& losses,
                           const TensorView& dlogits, const TensorView& weights) {
  bool legal = true;
  for (std::int32_t target : targets.span<std::int32_t>())
    legal &= target == no_target || (0 <= target && target < vocab_size);
  expect(legal, "targets within the vocabulary");
  const float* const row_weights = weights.empty() ? nullptr : weights.as<float>();
  if (row_weights != nullptr)
    for (const float weight : weights.span<float>()) legal &= std::isfinite(weight) && weight >= 0;
  expect(legal, "weights that are finite and not below 0");
  parallel_rows(logits.rows(), logits.cols(), [&](std::int64_t begin, std::int64_t end) {
    HWY_DYNAMIC_DISPATCH(losses_of)
    (logits, targets.as<std::int32_t>(), row_weights, vocab_size, gradient_scale,
     losses.as<float>(), dlogits, begin, end);
  });
}

}  // namespace switchyard::kernels::cpu

#endif  // HWY_ONCE
