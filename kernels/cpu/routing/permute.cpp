#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/routing/permute.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file once for every target.
#include "kernels/cpu/parallel.hpp"
#include "kernels/cpu/routing/permute.hpp"
#include "kernels/cpu/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace switchyard::kernels::cpu::HWY_NAMESPACE {
namespace {

// sum over j of weights[j] * rows[row_of_slot[j]] at element i of the rows, without dropped
// choices; weights null: all 1.
template <class D, class T>
HWY_INLINE hn::Vec<D> weighted_sum(D d, Rows<T> rows, const std::int32_t* row_of_slot,
                                   const float* weights, std::int64_t top_k, std::int64_t i) {
  auto sum = hn::Zero(d);
  for (std::int64_t j = 0; j < top_k; ++j) {
    if (row_of_slot[j] < 0) continue;
    const auto element = load(d, rows[row_of_slot[j]] + i);
    sum = weights == nullptr ? hn::Add(sum, element)
                             : hn::MulAdd(hn::Set(d, weights[j]), element, sum);
  }
  return sum;
}

template <class T, class Sum>
void combine(const TensorView& rows, const TensorView& row_of_slot, const TensorView& weights,
             const TensorView& out, std::int64_t begin, std::int64_t end) {
  const Rows<T> in = rows_of<T>(rows);
  const Rows<Sum> to = rows_of<Sum>(out);
  const Rows<std::int32_t> slots = rows_of<std::int32_t>(row_of_slot);
  const bool weighted = !weights.empty();
  const Rows<float> w = weighted ? rows_of<float>(weights) : Rows<float>{nullptr, 0};
  const std::int64_t top_k = row_of_slot.cols();
  for (std::int64_t t = begin; t < end; ++t) {
    const std::int32_t* row_of = slots[t];
    const float* factors = weighted ? w[t] : nullptr;
    Sum* result = to[t];
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
      dw[t][j] =
          row < 0 ? 0.0f : backward_row(gradient[t], in[row], w[t][j], din[row], dout.cols());
    }
}

void combine_tokens(const TensorView& rows, const TensorView& row_of_slot,
                    const TensorView& weights, const TensorView& out, std::int64_t begin,
                    std::int64_t end) {
  const bool from_f32 = rows.dtype == DType::f32, to_f32 = out.dtype == DType::f32;
  const auto tokens = from_f32 ? (to_f32 ? combine<float, float> : combine<float, BFloat16>)
                               : (to_f32 ? combine<BFloat16, float> : combine<BFloat16, BFloat16>);
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
#include <vector>

#include "tensor/error.hpp"

namespace switchyard::kernels::cpu {

HWY_EXPORT(combine_tokens);
HWY_EXPORT(combine_backward_tokens);

namespace {

constexpr std::int32_t dropped = -1;

// Each below `limit`, or dropped.
void check_indices(const TensorView& index, std::int64_t limit) {
  const Rows<std::int32_t> rows = rows_of<std::int32_t>(index);
  bool legal = true;
  for (std::int64_t r = 0; r < index.rows(); ++r)
    for (std::int64_t c = 0; c < index.cols(); ++c)
      legal &= dropped <= rows[r][c] && rows[r][c] < limit;
  expect(legal, "indices within their range");
}

// The rows of a view as bytes.
struct ByteRows {
  explicit ByteRows(const TensorView& view)
      : data(view.kernel_bytes()),
        stride(view.row_stride * size_of(view.dtype)),
        num_bytes(static_cast<std::size_t>(view.cols() * size_of(view.dtype))) {}
  std::byte* operator[](std::int64_t row) const { return data + row * stride; }

  std::byte* data;
  std::int64_t stride;
  std::size_t num_bytes;  // of a row
};

}  // namespace

void sort_by_expert(const TensorView& indices, std::span<const std::int32_t> place_of_expert,
                    const TensorView& counts, const TensorView& row_of_slot,
                    const TensorView& token_of_row, std::int64_t rows_of_place) {
  const std::int64_t tokens = indices.rows(), top_k = indices.cols();
  check_indices(indices, place_of_expert.empty() ? counts.numel() : std::ssize(place_of_expert));
  expect(std::ranges::all_of(place_of_expert,
                             [&](std::int32_t p) { return 0 <= p && p < counts.numel(); }),
         "a place that is counted for each expert");
  std::int32_t* next_row = counts.as<std::int32_t>();  // counts, then first rows, then counts again
  std::fill_n(next_row, counts.numel(), 0);
  std::ranges::fill(token_of_row.span<std::int32_t>(), dropped);
  if (indices.empty()) return;
  const Rows<std::int32_t> experts = rows_of<std::int32_t>(indices);
  const Rows<std::int32_t> row_of = rows_of<std::int32_t>(row_of_slot);
  std::int32_t* token_of = token_of_row.as<std::int32_t>();
  const auto place_of = [place_of_expert](std::int32_t expert) {
    return place_of_expert.empty() ? expert : place_of_expert[static_cast<std::size_t>(expert)];
  };
  for (std::int64_t t = 0; t < tokens; ++t)
    for (std::int64_t j = 0; j < top_k; ++j)
      if (experts[t][j] != dropped) ++next_row[place_of(experts[t][j])];
  std::vector<std::int32_t> first_row;
  std::int32_t num_rows = 0;
  for (std::int64_t p = 0; p < counts.numel(); ++p) {
    expect(rows_of_place == 0 || next_row[p] <= rows_of_place,
           "no more rows of a place than it has room for");
    first_row.push_back(rows_of_place > 0 ? static_cast<std::int32_t>(p * rows_of_place)
                                          : num_rows);
    num_rows += std::exchange(next_row[p], first_row.back());
  }
  for (std::int64_t t = 0; t < tokens; ++t)
    for (std::int64_t j = 0; j < top_k; ++j) {
      row_of[t][j] = experts[t][j] == dropped ? dropped : next_row[place_of(experts[t][j])]++;
      if (row_of[t][j] != dropped) token_of[row_of[t][j]] = static_cast<std::int32_t>(t);
    }
  // next_row[p] is now where place p ends.
  for (std::size_t p = 0; p < first_row.size(); ++p) next_row[p] -= first_row[p];
}

void gather_rows(const TensorView& src, const TensorView& index, const TensorView& dst) {
  check_indices(index, src.rows());
  const std::int32_t* from_row = index.as<std::int32_t>();
  const ByteRows from(src), to(dst);
  parallel_rows(dst.rows(), dst.cols(), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      if (from_row[i] == dropped)
        std::memset(to[i], 0, to.num_bytes);
      else
        std::memcpy(to[i], from[from_row[i]], to.num_bytes);
  });
}

void scatter_rows(const TensorView& src, const TensorView& index, const TensorView& dst) {
  check_indices(index, dst.rows());
  const std::int32_t* to_row = index.as<std::int32_t>();
  const ByteRows from(src), to(dst);
  parallel_rows(src.rows(), src.cols(), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      if (to_row[i] != dropped) std::memcpy(to[to_row[i]], from[i], from.num_bytes);
  });
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
