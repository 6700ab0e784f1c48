#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/rows/elementwise.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file once for every target.
#include "kernels/cpu/parallel.hpp"
#include "kernels/cpu/rows/elementwise.hpp"
#include "kernels/cpu/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace switchyard::kernels::cpu::HWY_NAMESPACE {
namespace {

template <class From, class To>
void convert(const From* from, To* to, std::int64_t n) {
  for_lanes(n, [=](auto d, std::int64_t i) HWY_ATTR { store(d, load(d, from + i), to + i); });
}

void to_bf16_span(const float* from, BFloat16* to, std::int64_t n) {
  convert(from, to, n);
}
void to_float_span(const BFloat16* from, float* to, std::int64_t n) {
  convert(from, to, n);
}

template <class T>
void add(const T* a, const T* b, T* out, std::int64_t n) {
  for_lanes(n, [=](auto d, std::int64_t i)
                   HWY_ATTR { store(d, hn::Add(load(d, a + i), load(d, b + i)), out + i); });
}

void add_f32(const float* a, const float* b, float* out, std::int64_t n) {
  add(a, b, out, n);
}
void add_bf16(const BFloat16* a, const BFloat16* b, BFloat16* out, std::int64_t n) {
  add(a, b, out, n);
}

void accumulate_bf16(float* sum, const BFloat16* x, std::int64_t n) {
  for_lanes(n, [=](auto d, std::int64_t i)
                   HWY_ATTR { store(d, hn::Add(load(d, sum + i), load(d, x + i)), sum + i); });
}

void scale_span(float* x, float factor, std::int64_t n) {
  for_lanes(n, [=](auto d, std::int64_t i)
                   HWY_ATTR { store(d, hn::Mul(load(d, x + i), hn::Set(d, factor)), x + i); });
}

}  // namespace
}  // namespace switchyard::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include <cstring>
#include <numeric>

namespace switchyard::kernels::cpu {

HWY_EXPORT(to_bf16_span);
HWY_EXPORT(to_float_span);
HWY_EXPORT(add_f32);
HWY_EXPORT(add_bf16);
HWY_EXPORT(accumulate_bf16);
HWY_EXPORT(scale_span);

void convert_span(const float* from, BFloat16* to, std::int64_t n) {
  HWY_DYNAMIC_DISPATCH(to_bf16_span)(from, to, n);
}

void convert_span(const BFloat16* from, float* to, std::int64_t n) {
  HWY_DYNAMIC_DISPATCH(to_float_span)(from, to, n);
}

void accumulate_span(float* sum, const float* x, std::int64_t n) {
  HWY_DYNAMIC_DISPATCH(add_f32)(sum, x, sum, n);
}

void accumulate_span(float* sum, const BFloat16* x, std::int64_t n) {
  HWY_DYNAMIC_DISPATCH(accumulate_bf16)(sum, x, n);
}

void fill_zero(const TensorView& x) {
  const std::int64_t size = size_of(x.dtype);
  parallel_spans(x.rows(), x.cols(), x.is_contiguous(),
                 [&](std::int64_t row, std::int64_t begin, std::int64_t end) {
                   std::memset(x.kernel_bytes() + (row * x.row_stride + begin) * size, 0,
                               static_cast<std::size_t>((end - begin) * size));
                 });
}

void iota(const TensorView& x) {
  std::int32_t* numbers = x.as<std::int32_t>();
  parallel_blocks(x.numel(), block_elements, [numbers](std::int64_t begin, std::int64_t end) {
    std::iota(numbers + begin, numbers + end, static_cast<std::int32_t>(begin));
  });
}

namespace {

void copy_bytes(const TensorView& src, const TensorView& dst) {
  const std::int64_t size = size_of(src.dtype);
  parallel_spans(src.rows(), src.cols(), src.is_contiguous() && dst.is_contiguous(),
                 [&](std::int64_t row, std::int64_t begin, std::int64_t end) {
                   std::memcpy(dst.kernel_bytes() + (row * dst.row_stride + begin) * size,
                               src.kernel_bytes() + (row * src.row_stride + begin) * size,
                               static_cast<std::size_t>((end - begin) * size));
                 });
}

template <class From, class To>
void copy_converted(const TensorView& src, const TensorView& dst) {
  const Rows<From> from = rows_of<From>(src);
  const Rows<To> to = rows_of<To>(dst);
  parallel_spans(src.rows(), src.cols(), src.is_contiguous() && dst.is_contiguous(),
                 [&](std::int64_t row, std::int64_t begin, std::int64_t end) {
                   convert_span(from[row] + begin, to[row] + begin, end - begin);
                 });
}

template <class T, class Add>
void add_spans(const TensorView& a, const TensorView& b, const TensorView& out, Add add_span) {
  const Rows<T> x = rows_of<T>(a), y = rows_of<T>(b), sum = rows_of<T>(out);
  parallel_spans(a.rows(), a.cols(), a.is_contiguous() && b.is_contiguous() && out.is_contiguous(),
                 [&](std::int64_t row, std::int64_t begin, std::int64_t end) {
                   add_span(x[row] + begin, y[row] + begin, sum[row] + begin, end - begin);
                 });
}

}  // namespace

void copy(const TensorView& src, const TensorView& dst) {
  if (src.dtype == dst.dtype) return copy_bytes(src, dst);
  if (src.dtype == DType::f32) return copy_converted<float, BFloat16>(src, dst);
  copy_converted<BFloat16, float>(src, dst);
}

void add(const TensorView& a, const TensorView& b, const TensorView& out) {
  if (a.dtype == DType::f32) return add_spans<float>(a, b, out, HWY_DYNAMIC_DISPATCH(add_f32));
  add_spans<BFloat16>(a, b, out, HWY_DYNAMIC_DISPATCH(add_bf16));
}

void scale(const TensorView& x, float factor) {
  const Rows<float> values = rows_of<float>(x);
  parallel_spans(x.rows(), x.cols(), x.is_contiguous(),
                 [&](std::int64_t row, std::int64_t begin, std::int64_t end) {
                   HWY_DYNAMIC_DISPATCH(scale_span)(values[row] + begin, factor, end - begin);
                 });
}

}  // namespace switchyard::kernels::cpu

#endif  // HWY_ONCE
