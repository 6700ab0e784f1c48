// Checks that several public entries share: what a view must look like.
#pragma once

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

}  // namespace switchyard::kernels
