#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/recurrence/short_convolution.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file once for every target.
#include <algorithm>

#include "kernels/cpu/parallel.hpp"
#include "kernels/cpu/recurrence/convolution_tokens.hpp"
#include "kernels/cpu/recurrence/short_convolution.hpp"
#include "kernels/cpu/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace switchyard::kernels::cpu::HWY_NAMESPACE {
namespace {

// y = bias + sum of taps[j] x of the row j before. taps: [reach + 1, stride]; x: the token's own
// row, those before it `x_stride` apart.
template <class T>
void forward_row(const T* x, std::int64_t x_stride, const float* taps, std::int64_t stride,
                 std::int64_t reach, const float* bias, T* y, std::int64_t n) {
  for_lanes(n, [=](auto d, std::int64_t c) HWY_ATTR {
    auto sum = load(d, bias + c);
    for (std::int64_t j = 0; j <= reach; ++j)
      sum = hn::MulAdd(load(d, taps + j * stride + c), load(d, x - j * x_stride + c), sum);
    store(d, sum, y + c);
  });
}

// dx of the rows j before += taps[j] dy; sums[j] += dy x of the row j before; sum_dy += dy.
template <class T>
void backward_row(const T* dy, const T* x, std::int64_t x_stride, const float* taps,
                  std::int64_t stride, std::int64_t reach, float* dx, std::int64_t dx_stride,
                  float* sums, float* sum_dy, std::int64_t n) {
  for_lanes(n, [=](auto d, std::int64_t c) HWY_ATTR {
    const auto gradient = load(d, dy + c);
    store(d, hn::Add(load(d, sum_dy + c), gradient), sum_dy + c);
    for (std::int64_t j = 0; j <= reach; ++j) {
      float* const to = dx - j * dx_stride + c;
      store(d, hn::MulAdd(load(d, taps + j * stride + c), gradient, load(d, to)), to);
      float* const sum = sums + j * stride + c;
      store(d, hn::MulAdd(load(d, x - j * x_stride + c), gradient, load(d, sum)), sum);
    }
  });
}

void forward_f32(const float* x, std::int64_t x_stride, const float* taps, std::int64_t stride,
                 std::int64_t reach, const float* bias, float* y, std::int64_t n) {
  forward_row(x, x_stride, taps, stride, reach, bias, y, n);
}
void forward_bf16(const BFloat16* x, std::int64_t x_stride, const float* taps, std::int64_t stride,
                  std::int64_t reach, const float* bias, BFloat16* y, std::int64_t n) {
  forward_row(x, x_stride, taps, stride, reach, bias, y, n);
}
void backward_f32(const float* dy, const float* x, std::int64_t x_stride, const float* taps,
                  std::int64_t stride, std::int64_t reach, float* dx, std::int64_t dx_stride,
                  float* sums, float* sum_dy, std::int64_t n) {
  backward_row(dy, x, x_stride, taps, stride, reach, dx, dx_stride, sums, sum_dy, n);
}
void backward_bf16(const BFloat16* dy, const BFloat16* x, std::int64_t x_stride, const float* taps,
                   std::int64_t stride, std::int64_t reach, float* dx, std::int64_t dx_stride,
                   float* sums, float* sum_dy, std::int64_t n) {
  backward_row(dy, x, x_stride, taps, stride, reach, dx, dx_stride, sums, sum_dy, n);
}

}  // namespace
}  // namespace switchyard::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace switchyard::kernels::cpu {

HWY_EXPORT(forward_f32);
HWY_EXPORT(forward_bf16);
HWY_EXPORT(backward_f32);
HWY_EXPORT(backward_bf16);

namespace {

// Channels that one piece of work takes.
constexpr std::int64_t block = 64;
// Rows whose products are summed in fp32 before they go into a sum in double.
constexpr std::int64_t rows_of_sum = 256;

struct Channels {
  std::int64_t begin;
  std::int64_t count;
};
Channels channels_of(const ConvolutionShape& shape, std::int64_t i) {
  return {i * block, std::min(block, shape.channels - i * block)};
}
std::int64_t num_blocks(const ConvolutionShape& shape) {
  return (shape.channels + block - 1) / block;
}

// [w, block]: row j of the tap on the token j before.
std::vector<float> taps_of(const ConvolutionShape& shape, const TensorView& weight,
                           const Channels& channels) {
  std::vector<float> taps(static_cast<std::size_t>(shape.width * block));
  for (std::int64_t j = 0; j < shape.width; ++j)
    for (std::int64_t c = 0; c < channels.count; ++c)
      taps[static_cast<std::size_t>(j * block + c)] =
          weight.as<float>()[(channels.begin + c) * shape.width + shape.width - 1 - j];
  return taps;
}

template <class T, class RowKernel>
void convolve(const ConvolutionShape& shape, const TensorView& x, const TensorView& weight,
              const TensorView& bias, const TensorView& y, RowKernel kernel) {
  const Rows<T> in = rows_of<T>(x), out = rows_of<T>(y);
  const std::int64_t blocks = num_blocks(shape);
  for_each_piece(shape.num_sequences * blocks, [&](std::int64_t piece, int) {
    const Channels channels = channels_of(shape, piece % blocks);
    const std::vector<float> taps = taps_of(shape, weight, channels);
    std::vector<float> biases(block, 0.0f);
    if (!bias.empty())
      std::copy_n(bias.as<float>() + channels.begin, channels.count, biases.begin());
    for_each_token(shape, piece / blocks,
                   [&](std::int64_t row, std::int64_t own, std::int64_t reach) {
                     kernel(in[own] + channels.begin, in.stride, taps.data(), block, reach,
                            biases.data(), out[row] + channels.begin, channels.count);
                   });
  });
}

// Sums of one block of channels: of the taps, then of dy.
class TapSums {
 public:
  explicit TapSums(std::int64_t width)
      : width_(width),
        part_(static_cast<std::size_t>((width + 1) * block), 0.0f),
        whole_(part_.size(), 0.0) {}
  float* taps() { return part_.data(); }
  float* dy() { return part_.data() + width_ * block; }
  void count_row() {
    if (++rows_ % rows_of_sum == 0) flush();
  }
  void flush() {
    for (std::size_t i = 0; i < part_.size(); ++i) {
      whole_[i] += static_cast<double>(part_[i]);
      part_[i] = 0;
    }
  }
  float of(std::int64_t tap, std::int64_t channel) const {
    return static_cast<float>(whole_[static_cast<std::size_t>(tap * block + channel)]);
  }

 private:
  std::int64_t width_;
  std::int64_t rows_ = 0;
  std::vector<float> part_;
  std::vector<double> whole_;
};

template <class T, class RowKernel>
void differentiate(const ConvolutionShape& shape, const TensorView& dy, const TensorView& x,
                   const TensorView& weight, const TensorView& dx, const TensorView& dweight,
                   const TensorView& dbias, RowKernel kernel) {
  const Rows<T> gradient = rows_of<T>(dy), in = rows_of<T>(x);
  const Rows<float> to = rows_of<float>(dx);
  for_each_piece(num_blocks(shape), [&](std::int64_t piece, int) {
    const Channels channels = channels_of(shape, piece);
    const std::vector<float> taps = taps_of(shape, weight, channels);
    for (std::int64_t row = 0; row < x.rows(); ++row)
      std::fill_n(to[row] + channels.begin, channels.count, 0.0f);
    TapSums sums(shape.width);
    for (std::int64_t sequence = 0; sequence < shape.num_sequences; ++sequence)
      for_each_token(shape, sequence, [&](std::int64_t row, std::int64_t own, std::int64_t reach) {
        kernel(gradient[row] + channels.begin, in[own] + channels.begin, in.stride, taps.data(),
               block, reach, to[own] + channels.begin, to.stride, sums.taps(), sums.dy(),
               channels.count);
        sums.count_row();
      });
    sums.flush();
    for (std::int64_t c = 0; c < channels.count; ++c) {
      for (std::int64_t j = 0; j < shape.width; ++j)
        dweight.as<float>()[(channels.begin + c) * shape.width + shape.width - 1 - j] +=
            sums.of(j, c);
      if (!dbias.empty()) dbias.as<float>()[channels.begin + c] += sums.of(shape.width, c);
    }
  });
}

}  // namespace

void short_convolution_forward(const ConvolutionShape& shape, const TensorView& x,
                               const TensorView& weight, const TensorView& bias,
                               const TensorView& y) {
  if (x.dtype == DType::f32)
    convolve<float>(shape, x, weight, bias, y, HWY_DYNAMIC_DISPATCH(forward_f32));
  else
    convolve<BFloat16>(shape, x, weight, bias, y, HWY_DYNAMIC_DISPATCH(forward_bf16));
}

void short_convolution_backward(const ConvolutionShape& shape, const TensorView& dy,
                                const TensorView& x, const TensorView& weight, const TensorView& dx,
                                const TensorView& dweight, const TensorView& dbias) {
  if (x.dtype == DType::f32)
    differentiate<float>(shape, dy, x, weight, dx, dweight, dbias,
                         HWY_DYNAMIC_DISPATCH(backward_f32));
  else
    differentiate<BFloat16>(shape, dy, x, weight, dx, dweight, dbias,
                            HWY_DYNAMIC_DISPATCH(backward_bf16));
}

}  // namespace switchyard::kernels::cpu

#endif  // HWY_ONCE
