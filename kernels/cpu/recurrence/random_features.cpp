#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/recurrence/random_features.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file once for every target.
#include <algorithm>
#include <cmath>

#include "kernels/cpu/attention/attention_blocks.hpp"
#include "kernels/cpu/parallel.hpp"
#include "kernels/cpu/recurrence/random_features.hpp"
#include "kernels/cpu/recurrence/recurrence_rows.hpp"
#include "kernels/cpu/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace switchyard::kernels::cpu::HWY_NAMESPACE {
namespace {

constexpr float least_exponent = -60.0f;

float squares(const float* x, std::int64_t n) {
  return sum_of(n, [=](auto d, std::int64_t i) HWY_ATTR {
    const auto v = load(d, x + i);
    return hn::Mul(v, v);
  });
}

// exponents = dots + sign halves - offset, with the offset at which the largest is 0, or the one
// that is given.
void make_exponents(float* dots, const float* halves, std::int64_t n, float sign,
                    const float* given) {
  for_lanes(n, [=](auto d, std::int64_t i) HWY_ATTR {
    const auto half = hn::Mul(hn::Set(d, sign), load(d, halves + i));
    store(d, hn::Add(load(d, dots + i), half), dots + i);
  });
  const float offset = given != nullptr ? *given : max_of(dots, n, dots[0]);
  for_lanes(n, [=](auto d, std::int64_t i) HWY_ATTR {
    store(d, hn::Sub(load(d, dots + i), hn::Set(d, offset)), dots + i);
  });
}

template <class T>
void features(const float* exponents, std::int64_t n, T* y) {
  for_lanes(n, [=](auto d, std::int64_t i) HWY_ATTR {
    store(d, exp_of(d, hn::Max(load(d, exponents + i), hn::Set(d, least_exponent))), y + i);
  });
}
void features_f32(const float* exponents, std::int64_t n, float* y) {
  features(exponents, n, y);
}
void features_bf16(const float* exponents, std::int64_t n, BFloat16* y) {
  features(exponents, n, y);
}

// Of the exponents, in their place; returns their sum.
template <class T>
float exponent_gradients(const T* dy, float* exponents, std::int64_t n) {
  for_lanes(n, [=](auto d, std::int64_t i) HWY_ATTR {
    const auto exponent = load(d, exponents + i);
    const auto gradient = hn::Mul(load(d, dy + i), exp_of(d, exponent));
    const auto moves = hn::Gt(exponent, hn::Set(d, least_exponent));
    store(d, hn::IfThenElseZero(moves, gradient), exponents + i);
  });
  return sum_of(n, [=](auto d, std::int64_t i) HWY_ATTR { return load(d, exponents + i); });
}
float exponent_gradients_f32(const float* dy, float* exponents, std::int64_t n) {
  return exponent_gradients(dy, exponents, n);
}
float exponent_gradients_bf16(const BFloat16* dy, float* exponents, std::int64_t n) {
  return exponent_gradients(dy, exponents, n);
}

}  // namespace
}  // namespace switchyard::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace switchyard::kernels::cpu {

HWY_EXPORT(squares);
HWY_EXPORT(make_exponents);
HWY_EXPORT(features_f32);
HWY_EXPORT(features_bf16);
HWY_EXPORT(exponent_gradients_f32);
HWY_EXPORT(exponent_gradients_bf16);

namespace {

constexpr std::int64_t block_rows = 32;
constexpr float most_offset = 64;  // e^64 is far from fp32's largest number, sums of it too

// Of one thread.
struct Scratch {
  Scratch(Carver& carver, std::int64_t width, std::int64_t num_features)
      : x(carver.take<float>(block_rows * width)),
        dx(carver.take<float>(block_rows * width)),
        exponents(carver.take<float>(block_rows * num_features)),
        halves(carver.take<float>(num_features)),
        scratchpad(carver.take<std::byte>(scratchpad_bytes)) {}

  float* x;          // [rows, width]: x'
  float* dx;         // [rows, width]
  float* exponents;  // [rows, m]; then their gradients
  float* halves;     // [m]: |w_r|^2 / 2
  std::byte* scratchpad;
};

std::int64_t scratch_bytes(std::int64_t width, std::int64_t num_features) {
  Carver carver(nullptr);
  const Scratch counted(carver, width, num_features);
  return carver.bytes_from_null();
}

const std::byte* bytes_of(const float* values) {
  return reinterpret_cast<const std::byte*>(values);
}

void store_features(const float* exponents, std::int64_t n, float* y) {
  HWY_DYNAMIC_DISPATCH(features_f32)(exponents, n, y);
}
void store_features(const float* exponents, std::int64_t n, BFloat16* y) {
  HWY_DYNAMIC_DISPATCH(features_bf16)(exponents, n, y);
}
float differentiate_exponents(const float* dy, float* exponents, std::int64_t n) {
  return HWY_DYNAMIC_DISPATCH(exponent_gradients_f32)(dy, exponents, n);
}
float differentiate_exponents(const BFloat16* dy, float* exponents, std::int64_t n) {
  return HWY_DYNAMIC_DISPATCH(exponent_gradients_bf16)(dy, exponents, n);
}

struct Block {
  std::int64_t row = 0;
  std::int64_t count = 0;
  std::int64_t head = 0;
};

class RandomFeatures {
 public:
  RandomFeatures(FeatureSide side, const TensorView& x, const TensorView& directions)
      : side_(side),
        x_(x),
        directions_(directions.as<float>()),
        width_(directions.cols()),
        num_features_(directions.rows()),
        root_(1 / std::sqrt(std::sqrt(static_cast<float>(width_)))) {}

  std::int64_t width() const { return width_; }
  std::int64_t num_features() const { return num_features_; }
  float root() const { return root_; }  // of x'

  // body(block, scratch) with the block's exponents.
  template <class T, class Body>
  void for_each_block(const TensorView& workspace, Body&& body) const {
    const std::int64_t heads = x_.cols() / width_;
    const std::int64_t each = scratch_bytes(width_, num_features_);
    const std::int64_t places = workspace.num_bytes() / each;
    for_each_piece((x_.rows() + block_rows - 1) / block_rows * heads,
                   [&](std::int64_t piece, int thread) {
                     Carver carver(workspace.kernel_bytes() + thread * each);
                     const Scratch scratch(carver, width_, num_features_);
                     Block block{
                         .row = piece / heads * block_rows, .count = 0, .head = piece % heads};
                     block.count = std::min(block_rows, x_.rows() - block.row);
                     fill_exponents<T>(block, scratch);
                     body(block, scratch);
                   },
                   static_cast<int>(std::min<std::int64_t>(places, num_threads())));
  }

  void multiply_by_directions(const Block& block, bool transposed, const float* rows, float* to,
                              std::byte* scratchpad) const {
    multiply({.m = block.count,
              .n = transposed ? num_features_ : width_,
              .k = transposed ? width_ : num_features_,
              .lda = transposed ? width_ : num_features_,
              .ldb = width_,
              .ldc = transposed ? num_features_ : width_,
              .b_transposed = transposed},
             bytes_of(rows), bytes_of(directions_), reinterpret_cast<std::byte*>(to), scratchpad);
  }

 private:
  template <class T>
  void fill_exponents(const Block& block, const Scratch& s) const {
    const Rows<T> rows = rows_of<T>(x_);
    for (std::int64_t i = 0; i < block.count; ++i)
      load_row(rows[block.row + i] + block.head * width_, width_, root_, s.x + i * width_);
    for (std::int64_t r = 0; r < num_features_; ++r)
      s.halves[r] = HWY_DYNAMIC_DISPATCH(squares)(directions_ + r * width_, width_) / 2;
    multiply_by_directions(block, true, s.x, s.exponents, s.scratchpad);
    const bool is_key = side_ == FeatureSide::keys;
    for (std::int64_t i = 0; i < block.count; ++i) {
      const float offset = HWY_DYNAMIC_DISPATCH(squares)(s.x + i * width_, width_) / 2 -
                           std::min(most_offset, static_cast<float>(width_) / 2);
      HWY_DYNAMIC_DISPATCH(make_exponents)
      (s.exponents + i * num_features_, s.halves, num_features_, is_key ? -1.0f : 1.0f,
       is_key ? &offset : nullptr);
    }
  }

  FeatureSide side_;
  const TensorView& x_;
  const float* directions_;
  std::int64_t width_;
  std::int64_t num_features_;
  float root_;
};

template <class T>
void forward(const RandomFeatures& f, const TensorView& y, const TensorView& workspace) {
  f.for_each_block<T>(workspace, [&](const Block& block, const Scratch& s) {
    const Rows<T> out = rows_of<T>(y);
    for (std::int64_t i = 0; i < block.count; ++i)
      store_features(s.exponents + i * f.num_features(), f.num_features(),
                     out[block.row + i] + block.head * f.num_features());
  });
}

template <class T>
void backward(FeatureSide side, const RandomFeatures& f, const TensorView& dy, const TensorView& dx,
              const TensorView& workspace) {
  f.for_each_block<T>(workspace, [&](const Block& block, const Scratch& s) {
    const Rows<T> gradients = rows_of<T>(dy), out = rows_of<T>(dx);
    const std::int64_t width = f.width(), m = f.num_features();
    float sums[block_rows];
    for (std::int64_t i = 0; i < block.count; ++i)
      sums[i] = differentiate_exponents(gradients[block.row + i] + block.head * m,
                                        s.exponents + i * m, m);
    f.multiply_by_directions(block, false, s.exponents, s.dx, s.scratchpad);
    for (std::int64_t i = 0; i < block.count; ++i) {
      float* const to = s.dx + i * width;
      if (side == FeatureSide::keys) subtract_block(to, s.x + i * width, width, sums[i]);
      store_row(to, width, f.root(), out[block.row + i] + block.head * width);
    }
  });
}

}  // namespace

void random_features_forward(FeatureSide side, const TensorView& x, const TensorView& directions,
                             const TensorView& y, const TensorView& workspace) {
  const RandomFeatures features(side, x, directions);
  if (x.dtype == DType::f32)
    forward<float>(features, y, workspace);
  else
    forward<BFloat16>(features, y, workspace);
}

void random_features_backward(FeatureSide side, const TensorView& dy, const TensorView& x,
                              const TensorView& directions, const TensorView& dx,
                              const TensorView& workspace) {
  const RandomFeatures features(side, x, directions);
  if (x.dtype == DType::f32)
    backward<float>(side, features, dy, dx, workspace);
  else
    backward<BFloat16>(side, features, dy, dx, workspace);
}

std::int64_t random_features_workspace_bytes(std::int64_t width, std::int64_t num_features,
                                             int num_threads) {
  return scratch_bytes(width, num_features) * num_threads;
}

}  // namespace switchyard::kernels::cpu

#endif  // HWY_ONCE
