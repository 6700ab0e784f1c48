#include <algorithm>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/sums/rank_order.hpp"
#include "tensor/error.hpp"

namespace switchyard::kernels::cuda {

namespace {

struct Sum {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};
// b != b: a NaN in b wins; a NaN in a stays because every comparison with it is false.
struct Max {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return b > a || b != b ? b : a;
  }
};
struct Min {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return b < a || b != b ? b : a;
  }
};

template <class T, class Op>
__global__ void reduce_kernel(T* own, const T* others, std::int64_t numel, int rank, int size,
                              Op op) {
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < numel; i += step) {
    const auto operand = [&](int p) {
      return p == rank ? own[i] : others[(p < rank ? p : p - 1) * numel + i];
    };
    T result = operand(0);
    for (int p = 1; p < size; ++p) result = op(result, operand(p));
    own[i] = result;
  }
}

template <class T, class Op>
void launch(cudaStream_t stream, const RankOperands& operands, Op op) {
  constexpr int threads = 256;
  constexpr std::int64_t most_blocks = 1024;
  const auto blocks =
      static_cast<unsigned>(std::min((operands.numel + threads - 1) / threads, most_blocks));
  reduce_kernel<<<blocks, threads, 0, stream>>>(reinterpret_cast<T*>(operands.own),
                                                reinterpret_cast<const T*>(operands.others),
                                                operands.numel, operands.rank, operands.size, op);
  check_launch();
}

template <class T>
void launch(cudaStream_t stream, const RankOperands& operands, RankReduction op) {
  switch (op) {
    case RankReduction::sum:
      return launch<T>(stream, operands, Sum{});
    case RankReduction::max:
      return launch<T>(stream, operands, Max{});
    case RankReduction::min:
      return launch<T>(stream, operands, Min{});
  }
}

}  // namespace

void reduce_in_rank_order(Stream& stream, const RankOperands& operands, RankReduction op) {
  if (operands.numel == 0) return;
  const cudaStream_t native = switchyard::cuda::native(stream);
  switch (operands.dtype) {
    case DType::f32:
      return launch<float>(native, operands, op);
    case DType::f64:
      return launch<double>(native, operands, op);
    case DType::i32:
      return launch<std::int32_t>(native, operands, op);
    case DType::i64:
      return launch<std::int64_t>(native, operands, op);
    default:
      expect(false, "a reduction of f32, f64, i32 or i64");
  }
}

}  // namespace switchyard::kernels::cuda
