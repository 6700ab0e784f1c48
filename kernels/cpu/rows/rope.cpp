#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/rows/rope.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file once for every target.
#include "kernels/cpu/parallel.hpp"
#include "kernels/cpu/rows/rope.hpp"
#include "kernels/cpu/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace switchyard::kernels::cpu::HWY_NAMESPACE {
namespace {

// Every head of a row: (a, b) becomes (a cos - b sin, b cos + a sin), a and b its halves. coarse
// and fine hold cos and sin [2, half] of two angles whose sum is turned by; `turn` is 1 or -1.
template <class T>
void rotate_row(T* row, std::int64_t cols, const float* coarse, const float* fine, float turn,
                std::int64_t half) {
  for_lanes(half, [=](auto d, std::int64_t i) HWY_ATTR {
    const auto c1 = load(d, coarse + i), s1 = load(d, coarse + half + i);
    const auto c2 = load(d, fine + i), s2 = load(d, fine + half + i);
    const auto c = hn::NegMulAdd(s1, s2, hn::Mul(c1, c2));
    const auto s = hn::Mul(hn::MulAdd(s1, c2, hn::Mul(c1, s2)), hn::Set(d, turn));
    for (T* head = row; head < row + cols; head += 2 * half) {
      const auto a = load(d, head + i), b = load(d, head + half + i);
      store(d, hn::NegMulAdd(b, s, hn::Mul(a, c)), head + i);
      store(d, hn::MulAdd(a, s, hn::Mul(b, c)), head + half + i);
    }
  });
}

void rotate_f32(float* row, std::int64_t cols, const float* coarse, const float* fine, float turn,
                std::int64_t half) {
  rotate_row(row, cols, coarse, fine, turn, half);
}
void rotate_bf16(BFloat16* row, std::int64_t cols, const float* coarse, const float* fine,
                 float turn, std::int64_t half) {
  rotate_row(row, cols, coarse, fine, turn, half);
}

}  // namespace
}  // namespace switchyard::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include "tensor/error.hpp"

namespace switchyard::kernels::cpu {

HWY_EXPORT(rotate_f32);
HWY_EXPORT(rotate_bf16);

namespace {

template <class T, class RotateRow>
void rotate_rows(const TensorView& x, const RopeTable& table, const std::int32_t* positions,
                 std::int64_t head_dim, float turn, RotateRow rotate) {
  const Rows<T> rows = rows_of<T>(x);
  const Rows<float> coarse = rows_of<float>(table.coarse), fine = rows_of<float>(table.fine);
  parallel_rows(x.rows(), x.cols(), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t)
      rotate(rows[t], x.cols(), coarse[positions[t] / RopeTable::fine_positions],
             fine[positions[t] % RopeTable::fine_positions], turn, head_dim / 2);
  });
}

}  // namespace

void rope(const TensorView& x, const RopeTable& table, const TensorView& positions,
          std::int64_t head_dim, Rotation rotation) {
  const std::int32_t* of_rows = positions.as<std::int32_t>();
  for (std::int64_t t = 0; t < x.rows(); ++t)
    expect(0 <= of_rows[t] && of_rows[t] < table.num_positions, "positions that the table covers");
  const float turn = rotation == Rotation::forward ? 1.0f : -1.0f;
  if (x.dtype == DType::f32)
    return rotate_rows<float>(x, table, of_rows, head_dim, turn, HWY_DYNAMIC_DISPATCH(rotate_f32));
  rotate_rows<BFloat16>(x, table, of_rows, head_dim, turn, HWY_DYNAMIC_DISPATCH(rotate_bf16));
}

}  // namespace switchyard::kernels::cpu

#endif  // HWY_ONCE
