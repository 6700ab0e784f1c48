#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/sums/adamw.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file once for every target.
#include "kernels/cpu/parallel.hpp"
#include "kernels/cpu/simd-inl.hpp"
#include "kernels/cpu/sums/adamw.hpp"

HWY_BEFORE_NAMESPACE();
namespace switchyard::kernels::cpu::HWY_NAMESPACE {
namespace {

// correction1 and correction2 are 1 / (1 - beta^step).
void update_span(float* value, const float* gradient, float* moment1, float* moment2,
                 const AdamWScalars& scalars, float decay, float scale, float correction1,
                 float correction2, std::int64_t n) {
  const float rate = scalars.learning_rate;
  const float beta1 = scalars.beta1, beta2 = scalars.beta2, epsilon = scalars.epsilon;
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

#include <vector>

#include "kernels/cpu/sums/fixed_point.hpp"

namespace switchyard::kernels::cpu {

HWY_EXPORT(update_span);

namespace {

// The gradients from `begin` on as f32: where they lie, or converted in `room`.
const float* gradients_at(const TensorView& gradient, std::int64_t begin, std::int64_t n,
                          int fraction_bits, std::vector<float>& room) {
  if (gradient.dtype == DType::f32) return gradient.as<float>() + begin;
  room.resize(static_cast<std::size_t>(n));
  from_fixed(gradient.as<std::int64_t>() + begin, n, fraction_bits, room.data());
  return room.data();
}

void update(const AdamWTensor& tensor, const AdamWScalars& scalars, float scale) {
  const float correction1 = adamw_bias_correction(scalars.beta1, scalars.step);
  const float correction2 = adamw_bias_correction(scalars.beta2, scalars.step);
  float* values = tensor.value.as<float>();
  float* first = tensor.moment1.as<float>();
  float* second = tensor.moment2.as<float>();
  parallel_blocks(tensor.value.numel(), block_elements, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> room;
    const float* gradients =
        gradients_at(tensor.gradient, begin, end - begin, scalars.fraction_bits, room);
    HWY_DYNAMIC_DISPATCH(update_span)
    (values + begin, gradients, first + begin, second + begin, scalars, tensor.weight_decay, scale,
     correction1, correction2, end - begin);
  });
}

}  // namespace

void adamw(std::span<const AdamWTensor> tensors, const AdamWScalars& scalars,
           const TensorView& decision) {
  const float scale = decision.as<float>()[0], go = decision.as<float>()[1];
  if (go == 0) return;
  for (const AdamWTensor& tensor : tensors)
    if (!tensor.value.empty()) update(tensor, scalars, scale);
}

}  // namespace switchyard::kernels::cpu

#endif  // HWY_ONCE
