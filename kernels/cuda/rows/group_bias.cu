#include "kernels/cuda/rows/group_bias.hpp"

#include "kernels/cuda/runs.cuh"

namespace switchyard::kernels::cuda {

namespace {

// The group of a row: the last one that begins at it or before it.
__device__ int group_of(const std::int32_t* offsets, int num_groups, std::int64_t row) {
  int low = 0, high = num_groups - 1;
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (offsets[middle] <= row)
      low = middle;
    else
      high = middle - 1;
  }
  return low;
}

template <class T, int width, bool whole>
struct AddBias {
  CardRows<T> bias, y;
  const std::int32_t* offsets;
  int num_groups;
  __device__ void operator()(std::int64_t row, std::int64_t col, std::int64_t left) const {
    if (row >= offsets[num_groups]) return;
    const T* const from = bias[group_of(offsets, num_groups, row)] + col;
    const Run<T, width> a = load_run<T, width, whole>(from, left);
    Run<T, width> sum = load_run<T, width, whole>(y[row] + col, left);
#pragma unroll
    for (int j = 0; j < width; ++j)
      sum.values[j] = from_float<T>(to_float(sum.values[j]) + to_float(a.values[j]));
    store_run<T, width, whole>(y[row] + col, left, sum);
  }
};

}  // namespace

void add_group_bias(const TensorView& bias, const TensorView& offsets, const TensorView& y) {
  with_float_type(y.dtype, [&](auto type) {
    using T = decltype(type);
    constexpr int width = packet_size<T>;
    const auto launch = [&]<bool whole>() {
      for_each_run<width>(
          stream_of(y), y.rows(), y.cols(),
          AddBias<T, width, whole>{card_rows<T>(bias), card_rows<T>(y),
                                   pointer<std::int32_t>(offsets), static_cast<int>(bias.rows())});
    };
    if (in_runs<T, width>(bias) && in_runs<T, width>(y))
      launch.template operator()<true>();
    else
      launch.template operator()<false>();
  });
}

}  // namespace switchyard::kernels::cuda
