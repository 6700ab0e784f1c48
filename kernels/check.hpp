// Checks that several public entries share: what a view must look like.
#pragma once

#include "kernels/gradient_sum.hpp"
#include "tensor/code_location.hpp"
#include "tensor/error.hpp"
#include "tensor/tensor.hpp"

namespace switchyard::kernels {

inline bool is_float(DType dtype) {
  return dtype == DType::f32 || dtype == DType::bf16;
}

inline bool has_size(const TensorView& view, std::int64_t rows, std::int64_t cols) {
  return view.rows() == rows && view.cols() == cols;
}

// The dense rows of `view`: rows x cols of one element type.
inline void expect_matrix(const TensorView& view, DType dtype, std::int64_t rows, std::int64_t cols,
                          std::string_view what, CodeLocation where = CodeLocation::current()) {
  expect(view.dtype == dtype && has_size(view, rows, cols), what, where);
}

// Elements in one dense run, whatever the dims.
inline void expect_vector(const TensorView& view, DType dtype, std::int64_t numel,
                          std::string_view what, CodeLocation where = CodeLocation::current()) {
  expect(view.dtype == dtype && view.is_contiguous() && view.numel() == numel, what, where);
}

// Cards have no exact sums; no configuration asks for them there.
inline void no_exact_sums_on_cards() {
  expect(false, "exact sums on the CPU only");
}
// Nor are choices dropped there, so that no expert has a capacity.
inline void no_padding_on_cards() {
  expect(false, "rows that are padded to a capacity on the CPU only");
}
inline const TensorView& in_fp32(const GradientSum& sum,
                                 CodeLocation where = CodeLocation::current()) {
  expect(!sum.is_exact(), "a sum in fp32, on a card", where);
  return sum.view;
}

// A sum of so many gradients, f32 or exact; in one dense run if it is exact, or asked for.
inline void expect_gradient(const GradientSum& sum, std::int64_t numel, std::string_view what,
                            bool dense = true, CodeLocation where = CodeLocation::current()) {
  expect((sum.view.dtype == DType::f32 || sum.is_exact()) && sum.view.numel() == numel, what,
         where);
  expect(sum.view.is_contiguous() || !(dense || sum.is_exact()), "a contiguous sum of gradients",
         where);
  if (!sum.is_exact()) return;
  expect(sum.exact.unit_rows > 0 && sum.exact.most_of_unit > 0 &&
             sum.exact.overflow.dtype == DType::i32 && sum.exact.overflow.numel() == 1,
         "units, a bound and a flag for exact sums", where);
}

}  // namespace switchyard::kernels
