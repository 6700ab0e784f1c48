#include "kernels/cuda/sums/adamw.hpp"

#include "kernels/cuda/runs.cuh"
#include "kernels/cuda/sums/tensor_list.cuh"

namespace switchyard::kernels::cuda {

namespace {

constexpr int threads = 256;
constexpr int width = packet_size<float>;
constexpr int packets_at_once = 2;  // of each operand, that a thread has on their way
constexpr int rounds = 2;
constexpr std::int64_t block_elements = std::int64_t{threads} * width * packets_at_once * rounds;

struct Updated {
  float* value;
  const float* gradient;
  float* moment1;
  float* moment2;
  std::int64_t numel;
  float weight_decay;
  bool in_packets;  // all four at multiples of 16 bytes
};

// Few enough for the 4 KiB that go with a launch.
using Tensors = TensorList<Updated, 64>;
static_assert(sizeof(Tensors) < 4000);

struct Rule {
  float learning_rate;
  float beta1;
  float beta2;
  float epsilon;
  float correction1;  // 1 / (1 - beta1^step)
  float correction2;
  float gradient_scale;
  float weight_decay;

  __device__ void update(float& value, float gradient, float& moment1, float& moment2) const {
    const float g = gradient * gradient_scale;
    moment1 = beta1 * moment1 + (1.0f - beta1) * g;
    moment2 = beta2 * moment2 + (1.0f - beta2) * g * g;
    const float root = sqrtf(moment2 * correction2);
    const float step = moment1 * correction1 / (root + epsilon);
    value -= learning_rate * (step + weight_decay * value);
  }
};

using Four = Run<float, width>;

__device__ Four load_four(const float* data, std::int64_t i) {
  return load_run<float, width, true>(data + i, width);
}
__device__ void store_four(float* data, std::int64_t i, const Four& four) {
  store_run<float, width, true>(data + i, width, four);
}

// Elements begin ... end - 1, which are whole packets.
__device__ void update_packets(const Updated& tensor, const Rule& rule, std::int64_t begin,
                               std::int64_t end) {
  constexpr std::int64_t step = threads * width;
  for (std::int64_t first = begin + threadIdx.x * width; first < end;
       first += packets_at_once * step) {
    Four value[packets_at_once], gradient[packets_at_once], moment1[packets_at_once],
        moment2[packets_at_once];
#pragma unroll
    for (int k = 0; k < packets_at_once; ++k) {
      const std::int64_t i = first + k * step;
      if (i >= end) continue;
      gradient[k] = load_four(tensor.gradient, i);
      moment1[k] = load_four(tensor.moment1, i);
      moment2[k] = load_four(tensor.moment2, i);
      value[k] = load_four(tensor.value, i);
    }
#pragma unroll
    for (int k = 0; k < packets_at_once; ++k) {
      const std::int64_t i = first + k * step;
      if (i >= end) continue;
#pragma unroll
      for (int j = 0; j < width; ++j)
        rule.update(value[k].values[j], gradient[k].values[j], moment1[k].values[j],
                    moment2[k].values[j]);
      store_four(tensor.moment1, i, moment1[k]);
      store_four(tensor.moment2, i, moment2[k]);
      store_four(tensor.value, i, value[k]);
    }
  }
}

__device__ void update_elements(const Updated& tensor, const Rule& rule, std::int64_t begin,
                                std::int64_t end) {
#pragma unroll 4
  for (std::int64_t i = begin + threadIdx.x; i < end; i += threads) {
    float value = tensor.value[i], moment1 = tensor.moment1[i], moment2 = tensor.moment2[i];
    rule.update(value, tensor.gradient[i], moment1, moment2);
    tensor.moment1[i] = moment1;
    tensor.moment2[i] = moment2;
    tensor.value[i] = value;
  }
}

__global__ void __launch_bounds__(threads)
    adamw_kernel(const __grid_constant__ Tensors list, Rule rule, const float* decision) {
  if (decision[1] == 0) return;
  rule.gradient_scale = decision[0];
  const int which = list.tensor_of(blockIdx.x);
  const Updated& tensor = list.tensors[which];
  rule.weight_decay = tensor.weight_decay;
  const std::int64_t begin = (blockIdx.x - list.first_block[which]) * block_elements;
  const std::int64_t end = min(begin + block_elements, tensor.numel);
  const std::int64_t whole_end = tensor.in_packets ? end - end % width : begin;
  update_packets(tensor, rule, begin, whole_end);
  update_elements(tensor, rule, whole_end, end);
}

bool starts_packet(const TensorView& view) {
  return reinterpret_cast<std::uintptr_t>(view.kernel_bytes()) % sizeof(Four) == 0;
}

}  // namespace

void adamw(std::span<const AdamWTensor> tensors, const AdamWScalars& scalars,
           const TensorView& decision) {
  const Rule rule{.learning_rate = scalars.learning_rate,
                  .beta1 = scalars.beta1,
                  .beta2 = scalars.beta2,
                  .epsilon = scalars.epsilon,
                  .correction1 = adamw_bias_correction(scalars.beta1, scalars.step),
                  .correction2 = adamw_bias_correction(scalars.beta2, scalars.step),
                  .gradient_scale = 1,
                  .weight_decay = 0};
  Tensors list;
  const auto launch = [&] {
    if (list.size == 0) return;
    adamw_kernel<<<num_blocks(list.num_blocks(), 1), threads, 0, stream_of(decision)>>>(
        list, rule, pointer<float>(decision));
    check_launch();
    list.size = 0;
  };
  for (const AdamWTensor& tensor : tensors) {
    if (tensor.value.empty()) continue;
    const std::int64_t numel = tensor.value.numel();
    list.add({.value = pointer<float>(tensor.value),
              .gradient = pointer<float>(tensor.gradient),
              .moment1 = pointer<float>(tensor.moment1),
              .moment2 = pointer<float>(tensor.moment2),
              .numel = numel,
              .weight_decay = tensor.weight_decay,
              .in_packets = starts_packet(tensor.value) && starts_packet(tensor.gradient) &&
                            starts_packet(tensor.moment1) && starts_packet(tensor.moment2)},
             (numel + block_elements - 1) / block_elements);
    if (list.is_full()) launch();
  }
  launch();
}

}  // namespace switchyard::kernels::cuda
