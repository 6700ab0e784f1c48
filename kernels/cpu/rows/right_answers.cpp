#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/rows/right_answers.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file once for every target.
#include <limits>

#include "kernels/cpu/parallel.hpp"
#include "kernels/cpu/rows/right_answers.hpp"
#include "kernels/cpu/simd-inl.hpp"
#include "kernels/rows/cross_entropy.hpp"

HWY_BEFORE_NAMESPACE();
namespace switchyard::kernels::cpu::HWY_NAMESPACE {
namespace {

// Whether x[at] is the first of the largest.
bool is_first_maximum(const float* x, std::int64_t at, std::int64_t n) {
  constexpr float lowest = -std::numeric_limits<float>::infinity();
  const bool above_those_before = at == 0 || x[at] > max_of(x, at, lowest);
  return above_those_before && x[at] >= max_of(x + at + 1, n - at - 1, lowest);
}

}  // namespace
}  // namespace switchyard::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include "tensor/error.hpp"

namespace switchyard::kernels::cpu {

HWY_EXPORT(is_first_maximum);

void right_answers(const TensorView& logits, const TensorView& targets, std::int64_t vocab_size,
                   const TensorView& weights, const TensorView& right) {
  const Rows<float> in = rows_of<float>(logits);
  const auto* const target = targets.as<std::int32_t>();
  bool legal = true;
  for (std::int64_t t = 0; t < logits.rows(); ++t)
    legal &= target[t] == no_target || (0 <= target[t] && target[t] < vocab_size);
  expect(legal, "targets within the vocabulary");
  const float* const weight = weights.empty() ? nullptr : weights.as<float>();
  float* const out = right.as<float>();
  parallel_rows(logits.rows(), logits.cols(), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      out[t] = 0;
      if (target[t] == no_target) continue;
      if (HWY_DYNAMIC_DISPATCH(is_first_maximum)(in[t], target[t], vocab_size))
        out[t] = weight == nullptr ? 1.0f : weight[t];
    }
  });
}

}  // namespace switchyard::kernels::cpu

#endif
