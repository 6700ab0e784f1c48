#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/adamw.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file once for every target.
#include "kernels/cpu/adamw.hpp"
#include "kernels/cpu/parallel.hpp"
#include "kernels/cpu/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace switchyard::kernels::cpu::HWY_NAMESPACE {
namespace {

// correction1 and correction2 are 1 / (1 - beta^step).
void update_span(float* value, const float* gradient, float* moment1, float* moment2,
                 const AdamWScalars& scalars, float correction1, float correction2,
                 std::int64_t n) {
  const float rate = scalars.learning_rate, decay = scalars.weight_decay;
  const float beta1 = scalars.beta1, beta2 = scalars.beta2, epsilon = scalars.epsilon;
  const float scale = scalars.gradient_scale;
  for_lanes(n, [=](auto d, std::int64_t i) HWY_ATTR {
    const auto g = hn::Mul(load(d, gradient + i), hn::Set(d, scale));
    const auto m =
        hn::MulAdd(hn::Set(d, beta1), load(d, moment1 + i), hn::Mul(hn::Set(d, 1.0f - beta1), g));
    const auto v = hn::MulAdd(hn::Set(d, beta2), load(d, moment2 + i),
                              hn::Mul(hn::Mul(hn::Set(d, 1.0f - beta2), g), g));
    const auto root = hn::Sqrt(hn::Mul(v, hn::Set(d, correction2)));
    const auto step =
        hn::Div(hn::Mul(m, hn::Set(d, correction1)), hn::Add(root, hn::Set(d, epsilon)));
    const auto old = load(d, value + i);
    const auto total = hn::MulAdd(hn::Set(d, decay), old, step);
    store(d, m, moment1 + i);
    store(d, v, moment2 + i);
    store(d, hn::NegMulAdd(hn::Set(d, rate), total, old), value + i);
  });
}

}  // namespace
}  // namespace switchyard::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include <cmath>

namespace switchyard::kernels::cpu {

HWY_EXPORT(update_span);

namespace {

float bias_correction(float beta, std::int64_t step) {
  return static_cast<float>(1.0 /
                            (1.0 - std::pow(static_cast<double>(beta), static_cast<double>(step))));
}

}  // namespace

void adamw(const TensorView& value, const TensorView& gradient, const TensorView& moment1,
           const TensorView& moment2, const AdamWScalars& scalars) {
  const float correction1 = bias_correction(scalars.beta1, scalars.step);
  const float correction2 = bias_correction(scalars.beta2, scalars.step);
  float* values = value.as<float>();
  const float* gradients = gradient.as<float>();
  float* first = moment1.as<float>();
  float* second = moment2.as<float>();
  parallel_blocks(value.numel(), block_elements, [&](std::int64_t begin, std::int64_t end) {
    HWY_DYNAMIC_DISPATCH(update_span)
    (values + begin, gradients + begin, first + begin, second + begin, scalars, correction1,
     correction2, end - begin);
  });
}

}  // namespace switchyard::kernels::cpu

#endif  // HWY_ONCE
