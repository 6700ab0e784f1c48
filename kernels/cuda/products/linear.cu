#include "kernels/cuda/products/linear.hpp"

#include <algorithm>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/products/cublaslt.hpp"
#include "kernels/cuda/products/group_product.hpp"
#include "kernels/cuda/products/linear_sizes.hpp"

namespace switchyard::kernels::cuda {

namespace {

constexpr int threads = 256;

// One thread: `width` neighbours.
template <class T, int width>
struct alignas(width * sizeof(T)) Run {
  T values[width];
};
template <class T, int width>
__global__ void __launch_bounds__(threads)
    pack_kernel(const float* weight, T* packed, std::int64_t count) {
  const std::int64_t first = (std::int64_t{blockIdx.x} * threads + threadIdx.x) * width;
  if (first >= count) return;
  const auto from = *reinterpret_cast<const Run<float, width>*>(weight + first);
  Run<T, width> to;
  for (int i = 0; i < width; ++i) to.values[i] = from_float<T>(from.values[i]);
  *reinterpret_cast<Run<T, width>*>(packed + first) = to;
}

// As BLAS has it: rows of ours are its columns.
DenseProduct::Matrix matrix(const TensorView& view, bool is_transposed) {
  return {view.kernel_bytes(), view.rows() > 1 ? view.row_stride : view.cols(), is_transposed};
}

DenseProduct::Matrix matrix(const PackedWeight& weight, bool is_transposed) {
  return {weight.forward_layout().kernel_bytes(), weight.in_features(), is_transposed};
}

bool multiply(const DenseProduct& product, const TensorView& on) {
  Device& device = *on.device;
  return device.kernel_state<CublasLt>().multiply(
      product, device.kernel_scratch(product_workspace_bytes), stream_of(on));
}

}  // namespace

void pack_weight(const TensorView& weight, DType compute, const TensorView& packed) {
  with_float_type(compute, [&](auto type) {
    using T = decltype(type);
    const std::int64_t count = weight.numel();
    const auto launch = [&]<int width>() {
      pack_kernel<T, width><<<num_blocks(count, threads * width), threads, 0, stream_of(weight)>>>(
          pointer<float>(weight), reinterpret_cast<T*>(packed.kernel_bytes()), count);
    };
    if (count % 4 == 0 && reinterpret_cast<std::uintptr_t>(weight.kernel_bytes()) % 16 == 0)
      launch.template operator()<4>();
    else
      launch.template operator()<1>();
  });
  check_launch();
}

// y^T [out, rows] = W x^T.
void linear_forward(const TensorView& x, const PackedWeight& weight, const TensorView& y) {
  const DenseProduct product{.m = y.cols(),
                             .n = x.rows(),
                             .k = x.cols(),
                             .compute = x.dtype,
                             .result = y.dtype,
                             .a = matrix(weight, true),
                             .b = matrix(x, false),
                             .d = matrix(y, false)};
  if (!multiply(product, x))
    simt_product({.rows = x, .offsets = {}, .weights = {&weight, 1}, .other_rows = {}, .result = y},
                 true);
}

// dx^T [in, rows] = W^T dy^T.
void linear_backward_input(const TensorView& dy, const PackedWeight& weight, const TensorView& dx,
                           Accumulate accumulate) {
  const DenseProduct product{.m = dx.cols(),
                             .n = dy.rows(),
                             .k = dy.cols(),
                             .compute = dy.dtype,
                             .result = dx.dtype,
                             .a = matrix(weight, false),
                             .b = matrix(dy, false),
                             .d = matrix(dx, false),
                             .accumulates = accumulate == Accumulate::yes};
  if (!multiply(product, dy))
    simt_product({.rows = dy,
                  .offsets = {},
                  .weights = {&weight, 1},
                  .other_rows = {},
                  .result = dx,
                  .accumulate = accumulate},
                 false);
}

// dw^T [in, out] += x^T dy.
void linear_backward_weight(const TensorView& dy, const TensorView& x, const TensorView& dw) {
  const DenseProduct product{.m = x.cols(),
                             .n = dy.cols(),
                             .k = dy.rows(),
                             .compute = dy.dtype,
                             .result = DType::f32,
                             .a = matrix(x, false),
                             .b = matrix(dy, true),
                             .d = matrix(dw, false),
                             .accumulates = true};
  if (!multiply(product, dy))
    simt_product({.rows = dy,
                  .offsets = {},
                  .weights = {},
                  .other_rows = x,
                  .result = dw.reshape({1, dw.rows(), dw.cols()}),
                  .accumulate = Accumulate::yes},
                 false);
}

}  // namespace switchyard::kernels::cuda
