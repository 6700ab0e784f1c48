// What the kernels that move rows and choose experts share beyond runs.cuh.
#pragma once

#include <bit>

#include "kernels/cuda/runs.cuh"

namespace switchyard::kernels::cuda {

inline constexpr unsigned whole_warp = 0xffffffffu;

// The first element of a view that may be empty.
template <class T>
T* pointer_or_null(const TensorView& view) {
  return view.empty() ? nullptr : pointer<T>(view);
}

// An index of a row or an expert; -1: none.
__device__ inline void expect_index(std::int32_t index, std::int64_t limit) {
  expect_on_card(-1 <= index && index < limit, "indices within their range");
}

// Neighbouring threads, a power of 2, share a row of `accesses`; as many as have work, at most
// `most`.
inline int log2_threads_of_row(std::int64_t accesses, int most) {
  const auto wanted = static_cast<unsigned>(accesses < most ? accesses : most);
  return std::countr_zero(std::bit_ceil(wanted));
}

}  // namespace switchyard::kernels::cuda
