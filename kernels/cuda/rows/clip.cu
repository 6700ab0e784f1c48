#include "kernels/cuda/rows/clip.hpp"

#include "kernels/cuda/runs.cuh"

namespace switchyard::kernels::cuda {

namespace {

template <class T>
struct Clip {
  CardRows<T> x;
  CardRows<std::uint8_t> inside;  // no data: none is kept
  float limit;
  __device__ void operator()(std::int64_t row, std::int64_t col, std::int64_t) const {
    const float value = to_float(x[row][col]);
    const bool beyond = fabsf(value) > limit;
    if (beyond) x[row][col] = from_float<T>(copysignf(limit, value));
    if (inside.data != nullptr) inside[row][col] = beyond ? 0 : 1;
  }
};

template <class T>
struct Stop {
  CardRows<T> dx;
  CardRows<std::uint8_t> inside;
  __device__ void operator()(std::int64_t row, std::int64_t col, std::int64_t) const {
    if (inside[row][col] == 0) dx[row][col] = from_float<T>(0.0f);
  }
};

}  // namespace

void clip_forward(const TensorView& x, float limit, const TensorView& inside) {
  with_float_type(x.dtype, [&](auto type) {
    using T = decltype(type);
    const bool keeps = inside.device != nullptr;
    for_each_run<1>(
        stream_of(x), x.rows(), x.cols(),
        Clip<T>{card_rows<T>(x), keeps ? card_rows<std::uint8_t>(inside) : CardRows<std::uint8_t>{},
                limit});
  });
}

void clip_backward(const TensorView& dx, const TensorView& inside) {
  with_float_type(dx.dtype, [&](auto type) {
    using T = decltype(type);
    for_each_run<1>(stream_of(dx), dx.rows(), dx.cols(),
                    Stop<T>{card_rows<T>(dx), card_rows<std::uint8_t>(inside)});
  });
}

}  // namespace switchyard::kernels::cuda
