#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/permute.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file once for every target.
#include "kernels/cpu/parallel.hpp"
#include "kernels/cpu/permute.hpp"
#include "kernels/cpu/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace switchyard::kernels::cpu::HWY_NAMESPACE {
namespace {

// sum over j of weights[j] * rows[row_of_slot[j]] at element i of the rows; weights null: all 1.
template <class D, class T>
HWY_INLINE hn::Vec<D> weighted_sum(D d, Rows<T> rows, const std::int32_t* row_of_slot,
                                   const float* weights, std::int64_t top_k, std::int64_t i) {
  auto sum = hn::Zero(d);
  for (std::int64_t j = 0; j < top_k; ++j) {
    const auto element = load(d, rows[row_of_slot[j]] + i);
    sum = weights == nullptr ? hn::Add(sum, element)
                             : hn::MulAdd(hn::Set(d, weights[j]), element, sum);
  }
  return sum;
}

template <class T>
void combine(const TensorView& rows, const TensorView& row_of_slot, const TensorView& weights,
             const TensorView& out, std::int64_t begin, std::int64_t end) {
  const Rows<T> in = rows_of<T>(rows), to = rows_of<T>(out);
  const Rows<std::int32_t> slots = rows_of<std::int32_t>(row_of_slot);
  const bool weighted = !weights.empty();
  const Rows<float> w = weighted ? rows_of<float>(weights) : Rows<float>{nullptr, 0};
  const std::int64_t top_k = row_of_slot.cols();
  for (std::int64_t t = begin; t < end; ++t) {
    const std::int32_t* row_of = slots[t];
    const float* factors = weighted ? w[t] : nullptr;
    T* result = to[t];
    for_lanes(out.cols(), [=](auto d, std::int64_t i) HWY_ATTR {
      store(d, weighted_sum(d, in, row_of, factors, top_k, i), result + i);
    });
  }
}

template <class T>
float backward_row(const T* dout, const T* row, float weight, T* drow, std::int64_t hidden) {
  return sum_of(hidden, [=](auto d, std::int64_t i) HWY_ATTR {
    const auto gradient = load(d, dout + i);
    store(d, hn::Mul(gradient, hn::Set(d, weight)), drow + i);
    return hn::Mul(gradient, load(d, row + i));
  });
}

template <class T>
void combine_backward(const TensorView& dout, const TensorView& rows, const TensorView& row_of_slot,
                      const TensorView& weights, const TensorView& drows,
                      const TensorView& dweights, std::int64_t begin, std::int64_t end) {
  const Rows<T> gradient = rows_of<T>(dout), in = rows_of<T>(rows), din = rows_of<T>(drows);
  const Rows<std::int32_t> slots = rows_of<std::int32_t>(row_of_slot);
  const Rows<float> w = rows_of<float>(weights), dw = rows_of<float>(dweights);
  for (std::int64_t t = begin; t < end; ++t)
    for (std::int64_t j = 0; j < row_of_slot.cols(); ++j) {
      const std::int32_t row = slots[t][j];
      dw[t][j] = backward_row(gradient[t], in[row], w[t][j], din[row], dout.cols());
    }
}

void combine_tokens(const TensorView& rows, const TensorView& row_of_slot,
                    const TensorView& weights, const TensorView& out, std::int64_t begin,
                    std::int64_t end) {
  const auto tokens = out.dtype == DType::f32 ? combine<float> : combine<BFloat16>;
  tokens(rows, row_of_slot, weights, out, begin, end);
}

void combine_backward_tokens(const TensorView& dout, const TensorView& rows,
                             const TensorView& row_of_slot, const TensorView& weights,
                             const TensorView& drows, const TensorView& dweights,
                             std::int64_t begin, std::int64_t end) {
  const auto tokens =
      dout.dtype == DType::f32 ? combine_backward<float> : combine_backward<BFloat16>;
  tokens(dout, rows, row_of_slot, weights, drows, dweights, begin, end);
}

}  // namespace
}  // namespace switchyard::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include <cstring>
#include <utility>

#include "tensor/error.hpp"

namespace switchyard::kernels::cpu {

HWY_EXPORT(combine_tokens);
HWY_EXPORT(combine_backward_tokens);

namespace {

void check_indices(const TensorView& index, std::int64_t limit) {
  const Rows<std::int32_t> rows = rows_of<std::int32_t>(index);
  bool legal = true;
  for (std::int64_t r = 0; r < index.rows(); ++r)
    for (std::int64_t c = 0; c < index.cols(); ++c) legal &= 0 <= rows[r][c] && rows[r][c] < limit;
  expect(legal, "indices within their range");
}

// from_row(i) and to_row(i) are the rows that copy i reads and writes.
template <class FromRow, class ToRow>
void copy_rows(const TensorView& src, const TensorView& dst, std::int64_t num_copies,
               FromRow from_row, ToRow to_row) {
  const std::int64_t size = size_of(src.dtype);
  const std::size_t row_bytes = static_cast<std::size_t>(src.cols() * size);
  parallel_rows(num_copies, src.cols(), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      std::memcpy(dst.data + to_row(i) * dst.row_stride * size,
                  src.data + from_row(i) * src.row_stride * size, row_bytes);
  });
}

}  // namespace

void sort_by_expert(const TensorView& indices, const TensorView& counts,
                    const TensorView& row_of_slot, const TensorView& token_of_row) {
  const std::int64_t tokens = indices.rows(), top_k = indices.cols();
  check_indices(indices, counts.numel());
  std::int64_t* next_row = counts.as<std::int64_t>();  // counts, then places, then counts again
  std::fill_n(next_row, counts.numel(), std::int64_t{0});
  if (indices.empty()) return;
  const Rows<std::int32_t> expert = rows_of<std::int32_t>(indices);
  const Rows<std::int32_t> row_of = rows_of<std::int32_t>(row_of_slot);
  std::int32_t* token_of = token_of_row.as<std::int32_t>();
  for (std::int64_t t = 0; t < tokens; ++t)
    for (std::int64_t j = 0; j < top_k; ++j) ++next_row[expert[t][j]];
  std::int64_t first = 0;
  for (std::int64_t e = 0; e < counts.numel(); ++e) first += std::exchange(next_row[e], first);
  for (std::int64_t t = 0; t < tokens; ++t)
    for (std::int64_t j = 0; j < top_k; ++j) {
      const std::int64_t row = next_row[expert[t][j]]++;
      row_of[t][j] = static_cast<std::int32_t>(row);
      token_of[row] = static_cast<std::int32_t>(t);
    }
  // next_row[e] is now where expert e ends.
  for (std::int64_t e = counts.numel() - 1; e > 0; --e) next_row[e] -= next_row[e - 1];
}

void gather_rows(const TensorView& src, const TensorView& index, const TensorView& dst) {
  check_indices(index, src.rows());
  const std::int32_t* from = index.as<std::int32_t>();
  copy_rows(
      src, dst, dst.rows(), [from](std::int64_t i) { return from[i]; },
      [](std::int64_t i) { return i; });
}

void scatter_rows(const TensorView& src, const TensorView& index, const TensorView& dst) {
  check_indices(index, dst.rows());
  const std::int32_t* to = index.as<std::int32_t>();
  copy_rows(
      src, dst, src.rows(), [](std::int64_t i) { return i; },
      [to](std::int64_t i) { return to[i]; });
}

void combine_rows(const TensorView& rows, const TensorView& row_of_slot, const TensorView& weights,
                  const TensorView& out) {
  check_indices(row_of_slot, rows.rows());
  parallel_rows(out.rows(), out.cols() * row_of_slot.cols(),
                [&](std::int64_t begin, std::int64_t end) {
                  HWY_DYNAMIC_DISPATCH(combine_tokens)
                  (rows, row_of_slot, weights, out, begin, end);
                });
}

void combine_rows_backward(const TensorView& dout, const TensorView& rows,
                           const TensorView& row_of_slot, const TensorView& weights,
                           const TensorView& drows, const TensorView& dweights) {
  check_indices(row_of_slot, rows.rows());
  parallel_rows(dout.rows(), dout.cols() * row_of_slot.cols(),
                [&](std::int64_t begin, std::int64_t end) {
                  HWY_DYNAMIC_DISPATCH(combine_backward_tokens)
                  (dout, rows, row_of_slot, weights, drows, dweights, begin, end);
                });
}

void sum_rows(const TensorView& rows, const TensorView& row_of_slot, const TensorView& out) {
  combine_rows(rows, row_of_slot, TensorView{}, out);
}

}  // namespace switchyard::kernels::cpu

#endif  // HWY_ONCE
