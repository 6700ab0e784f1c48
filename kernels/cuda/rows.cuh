// The rows of a view as kernels address them, and how threads are dealt out to rows.
#pragma once

#include <bit>
#include <type_traits>

#include "kernels/cuda/common.cuh"

namespace switchyard::kernels::cuda {

inline constexpr unsigned whole_warp = 0xffffffffu;

// Row i at data + i * stride.
template <class T>
struct Rows {
  T* data = nullptr;
  std::int64_t stride = 0;  // elements

  __device__ T* operator[](std::int64_t row) const { return data + row * stride; }
};
template <class T>
Rows<T> rows_of(const TensorView& view) {
  if (view.empty()) return {};
  return {pointer<std::remove_const_t<T>>(view), view.row_stride};
}

// The first element of a view that may be empty.
template <class T>
T* pointer_or_null(const TensorView& view) {
  return view.empty() ? nullptr : pointer<T>(view);
}

// Indices that are none of a tensor's rows are a programmer's mistake. The host cannot be told
// without a wait: the kernel stops, and the next call that checks the card reports it.
__device__ inline void expect_index(std::int32_t index, std::int64_t limit) {
  if (index < -1 || index >= limit) __trap();
}

// Neighbouring threads, a power of 2, share a row of `accesses`; as many as have work, at most
// `most`.
inline int log2_threads_of_row(std::int64_t accesses, int most) {
  const auto wanted = static_cast<unsigned>(accesses < most ? accesses : most);
  return std::countr_zero(std::bit_ceil(wanted));
}

}  // namespace switchyard::kernels::cuda
