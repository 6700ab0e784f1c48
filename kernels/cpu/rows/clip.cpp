#include "kernels/cpu/rows/clip.hpp"

#include <cmath>

#include "kernels/cpu/element.hpp"
#include "kernels/cpu/parallel.hpp"

namespace switchyard::kernels::cpu {

namespace {

template <class T>
void clip_row(T* x, float limit, std::uint8_t* inside, std::int64_t width) {
  for (std::int64_t i = 0; i < width; ++i) {
    const float value = value_of(x[i]);
    const bool beyond = std::abs(value) > limit;
    put(beyond ? std::copysign(limit, value) : value, x[i]);
    if (inside != nullptr) inside[i] = beyond ? 0 : 1;
  }
}

template <class T>
void clip_rows(const TensorView& x, float limit, const TensorView& inside) {
  const Rows<T> rows = rows_of<T>(x);
  const bool keeps = inside.device != nullptr;
  const Rows<std::uint8_t> marks = keeps ? rows_of<std::uint8_t>(inside) : Rows<std::uint8_t>{};
  parallel_rows(x.rows(), x.cols(), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r)
      clip_row(rows[r], limit, keeps ? marks[r] : nullptr, x.cols());
  });
}

template <class T>
void stop_rows(const TensorView& dx, const TensorView& inside) {
  const Rows<T> rows = rows_of<T>(dx);
  const Rows<std::uint8_t> marks = rows_of<std::uint8_t>(inside);
  parallel_rows(dx.rows(), dx.cols(), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r)
      for (std::int64_t i = 0; i < dx.cols(); ++i)
        if (marks[r][i] == 0) put(0, rows[r][i]);
  });
}

}  // namespace

void clip_forward(const TensorView& x, float limit, const TensorView& inside) {
  x.dtype == DType::f32 ? clip_rows<float>(x, limit, inside)
                        : clip_rows<BFloat16>(x, limit, inside);
}

void clip_backward(const TensorView& dx, const TensorView& inside) {
  dx.dtype == DType::f32 ? stop_rows<float>(dx, inside) : stop_rows<BFloat16>(dx, inside);
}

}  // namespace switchyard::kernels::cpu
