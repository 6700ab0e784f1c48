#include "kernels/cuda/rows/clamped_swiglu.hpp"

#include "kernels/cuda/rows/gated_rows.cuh"

namespace switchyard::kernels::cuda {

namespace {

__device__ float within(float value, float low, float high) {
  return value > high ? high : value < low ? low : value;  // a NaN stays
}

__device__ float sigmoid(float x) {
  return 1.0f / (1.0f + expf(-x));
}

struct ClampedSwiglu {
  SwigluClamp clamp;

  __device__ float value(float gate, float up) const {
    const float g = within(gate, gate, clamp.limit);
    const float u = within(up, -clamp.limit, clamp.limit);
    return g * sigmoid(clamp.alpha * g) * (u + 1.0f);
  }
  __device__ GatedElement gradient(float d, float gate, float up) const {
    const float g = within(gate, gate, clamp.limit);
    const float u = within(up, -clamp.limit, clamp.limit);
    const float s = sigmoid(clamp.alpha * g);
    const float glu = g * s;
    return {.act = glu * (u + 1.0f),
            .d_gate = gate > clamp.limit
                          ? 0.0f
                          : d * (u + 1.0f) * s * (1.0f + clamp.alpha * g * (1.0f - s)),
            .d_up = fabsf(up) > clamp.limit ? 0.0f : d * glu};
  }
};

}  // namespace

void clamped_swiglu_forward(const TensorView& gate_up, const SwigluClamp& clamp,
                            const TensorView& act) {
  gated_forward(gate_up, act, [&](auto) { return ClampedSwiglu{clamp}; });
}

void clamped_swiglu_backward(const TensorView& d_act, const TensorView& gate_up,
                             const SwigluClamp& clamp, const TensorView& d_gate_up,
                             const TensorView& act) {
  gated_backward(d_act, gate_up, d_gate_up, act, [&](auto) { return ClampedSwiglu{clamp}; });
}

}  // namespace switchyard::kernels::cuda
