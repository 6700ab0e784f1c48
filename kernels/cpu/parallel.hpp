// How loops are cut into pieces for threads. Blocks depend on sizes alone, never on the number of
// threads, so that what is computed per block is the same whoever takes it.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/threads.hpp"
#include "tensor/tensor.hpp"

namespace switchyard::kernels::cpu {

// Elements that are worth a thread's start.
inline constexpr std::int64_t block_elements = 16384;

// body(begin, end) for consecutive blocks of at most `block` of the items 0 ... n - 1. The body
// must not throw.
template <class Body>
void parallel_blocks(std::int64_t n, std::int64_t block, Body&& body) {
  for_each_piece((n + block - 1) / block,
                 [&](std::int64_t b, int) { body(b * block, std::min(n, (b + 1) * block)); });
}

// Blocks of rows with enough elements each.
template <class Body>
void parallel_rows(std::int64_t rows, std::int64_t cols, Body&& body) {
  parallel_blocks(rows, std::max<std::int64_t>(1, block_elements / std::max<std::int64_t>(1, cols)),
                  body);
}

// body(row, begin, end) covers every element of a [rows, cols] view; when the rows of all views
// touch (`dense`) they are one long row 0.
template <class Body>
void parallel_spans(std::int64_t rows, std::int64_t cols, bool dense, Body&& body) {
  if (dense) {
    parallel_blocks(rows * cols, block_elements,
                    [&](std::int64_t begin, std::int64_t end) { body(0, begin, end); });
    return;
  }
  parallel_rows(rows, cols, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) body(row, std::int64_t{0}, cols);
  });
}

// A view's rows without the checks of every access: the type is checked once, here.
template <class T>
struct Rows {
  T* data;
  std::int64_t stride;  // elements
  T* operator[](std::int64_t row) const { return data + row * stride; }
};

template <class T>
Rows<T> rows_of(const TensorView& view) {
  return {view.as<T>(), view.row_stride};
}

}  // namespace switchyard::kernels::cpu
