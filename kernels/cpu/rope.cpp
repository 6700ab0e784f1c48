#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/rope.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file once for every target.
#include "kernels/cpu/parallel.hpp"
#include "kernels/cpu/rope.hpp"
#include "kernels/cpu/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace switchyard::kernels::cpu::HWY_NAMESPACE {
namespace {

// One head: (a, b) becomes (a cos - b sin, b cos + a sin), a and b its halves. `turn` is 1 or -1.
template <class T>
void rotate_head(T* head, const float* cos, const float* sin, float turn, std::int64_t half) {
  for_lanes(half, [=](auto d, std::int64_t i) HWY_ATTR {
    const auto a = load(d, head + i), b = load(d, head + half + i);
    const auto c = load(d, cos + i), s = hn::Mul(load(d, sin + i), hn::Set(d, turn));
    store(d, hn::NegMulAdd(b, s, hn::Mul(a, c)), head + i);
    store(d, hn::MulAdd(a, s, hn::Mul(b, c)), head + half + i);
  });
}

template <class T>
void rotate_row(T* row, std::int64_t cols, const float* cos, const float* sin, float turn,
                std::int64_t head_dim) {
  for (std::int64_t h = 0; h < cols; h += head_dim)
    rotate_head(row + h, cos, sin, turn, head_dim / 2);
}

void rotate_f32(float* row, std::int64_t cols, const float* cos, const float* sin, float turn,
                std::int64_t head_dim) {
  rotate_row(row, cols, cos, sin, turn, head_dim);
}
void rotate_bf16(BFloat16* row, std::int64_t cols, const float* cos, const float* sin, float turn,
                 std::int64_t head_dim) {
  rotate_row(row, cols, cos, sin, turn, head_dim);
}

}  // namespace
}  // namespace switchyard::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include <cmath>

namespace switchyard::kernels::cpu {

HWY_EXPORT(rotate_f32);
HWY_EXPORT(rotate_bf16);

void fill_rope_table(const TensorView& cos, const TensorView& sin, std::int64_t head_dim,
                     double base) {
  const Rows<float> cosines = rows_of<float>(cos), sines = rows_of<float>(sin);
  parallel_rows(cos.rows(), cos.cols(), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = 0; i < head_dim / 2; ++i) {
      const double frequency =
          std::pow(base, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
      for (std::int64_t position = begin; position < end; ++position) {
        const double angle = static_cast<double>(position) * frequency;
        cosines[position][i] = static_cast<float>(std::cos(angle));
        sines[position][i] = static_cast<float>(std::sin(angle));
      }
    }
  });
}

namespace {

template <class T, class RotateRow>
void rotate_rows(const TensorView& x, const RopeTable& table, std::int64_t head_dim,
                 std::int64_t sequence_length, std::int64_t first_position, Rotation rotation,
                 RotateRow rotate_row) {
  const Rows<T> rows = rows_of<T>(x);
  const Rows<float> cosines = rows_of<float>(table.cos), sines = rows_of<float>(table.sin);
  const float turn = rotation == Rotation::forward ? 1.0f : -1.0f;
  parallel_rows(x.rows(), x.cols(), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      const std::int64_t position = first_position + t % sequence_length;
      rotate_row(rows[t], x.cols(), cosines[position], sines[position], turn, head_dim);
    }
  });
}

}  // namespace

void rope(const TensorView& x, const RopeTable& table, std::int64_t head_dim,
          std::int64_t sequence_length, std::int64_t first_position, Rotation rotation) {
  if (x.dtype == DType::f32)
    return rotate_rows<float>(x, table, head_dim, sequence_length, first_position, rotation,
                              HWY_DYNAMIC_DISPATCH(rotate_f32));
  rotate_rows<BFloat16>(x, table, head_dim, sequence_length, first_position, rotation,
                        HWY_DYNAMIC_DISPATCH(rotate_bf16));
}

}  // namespace switchyard::kernels::cpu

#endif  // HWY_ONCE
