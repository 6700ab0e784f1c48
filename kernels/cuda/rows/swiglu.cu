#include "kernels/cuda/rows/swiglu.hpp"

#include "kernels/cuda/rows/gated_rows.cuh"

namespace switchyard::kernels::cuda {

namespace {

// For bf16 by the card's fast exponential and division: they err by less than 2^-18 of a value that
// counts, which is then rounded to 2^-9.
template <class T>
__device__ float sigmoid(float x) {
  if constexpr (sizeof(T) == 4)
    return 1.0f / (1.0f + expf(-x));
  else
    return __fdividef(1.0f, 1.0f + __expf(-x));
}

template <class T>
struct Swiglu {
  __device__ float value(float gate, float up) const { return gate * sigmoid<T>(gate) * up; }
  __device__ GatedElement gradient(float d, float gate, float up) const {
    const float s = sigmoid<T>(gate);
    const float silu = gate * s;
    return {.act = silu * up, .d_gate = d * up * (s + silu * (1.0f - s)), .d_up = d * silu};
  }
};
// Of a type of elements.
constexpr auto make_swiglu = [](auto type) { return Swiglu<decltype(type)>{}; };

constexpr int gate_threads = 256;

__global__ void gate_forward_kernel(const float* logits, float* gate, std::int64_t n) {
  const std::int64_t i = std::int64_t{blockIdx.x} * gate_threads + threadIdx.x;
  if (i < n) gate[i] = sigmoid<float>(logits[i]);
}

__global__ void gate_backward_kernel(const float* dgate, const float* gate, float* dlogits,
                                     std::int64_t n) {
  const std::int64_t i = std::int64_t{blockIdx.x} * gate_threads + threadIdx.x;
  if (i < n) dlogits[i] = dgate[i] * (gate[i] * (1.0f - gate[i]));
}

}  // namespace

void swiglu_forward(const TensorView& gate_up, const TensorView& act) {
  gated_forward(gate_up, act, make_swiglu);
}

void swiglu_backward(const TensorView& d_act, const TensorView& gate_up,
                     const TensorView& d_gate_up, const TensorView& act) {
  gated_backward(d_act, gate_up, d_gate_up, act, make_swiglu);
}

void sigmoid_forward(const TensorView& logits, const TensorView& gate) {
  gate_forward_kernel<<<num_blocks(gate.numel(), gate_threads), gate_threads, 0, stream_of(gate)>>>(
      pointer<float>(logits), pointer<float>(gate), gate.numel());
  check_launch();
}

void sigmoid_backward(const TensorView& dgate, const TensorView& gate, const TensorView& dlogits) {
  gate_backward_kernel<<<num_blocks(gate.numel(), gate_threads), gate_threads, 0,
                         stream_of(gate)>>>(pointer<float>(dgate), pointer<float>(gate),
                                            pointer<float>(dlogits), gate.numel());
  check_launch();
}

}  // namespace switchyard::kernels::cuda
