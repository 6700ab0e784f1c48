#include "kernels/cpu/attention/attention_merge.hpp"

#include <algorithm>
#include <cmath>

#include "kernels/cpu/element.hpp"
#include "kernels/cpu/parallel.hpp"

namespace switchyard::kernels::cpu {

namespace {

// The shares of both and the new lse; only differences are exponentiated. A side that saw nothing
// has lse -infinity and the share 0.
struct Shares {
  float own, other, lse;
};
Shares shares_of(float lse, float other) {
  const double larger = static_cast<double>(std::max(lse, other));
  if (std::isinf(larger)) return {1, 0, lse};
  const double both = larger + std::log(std::exp(static_cast<double>(lse) - larger) +
                                        std::exp(static_cast<double>(other) - larger));
  return {static_cast<float>(std::exp(static_cast<double>(lse) - both)),
          static_cast<float>(std::exp(static_cast<double>(other) - both)),
          static_cast<float>(both)};
}

template <class T>
void merge_rows(const TensorView& other, const TensorView& other_lse, std::int64_t head_dim,
                const TensorView& out, const TensorView& lse) {
  parallel_rows(out.rows(), out.cols(), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row)
      for (std::int64_t head = 0; head < lse.cols(); ++head) {
        float& own_lse = lse.row<float>(row)[head];
        const Shares shares = shares_of(own_lse, other_lse.row<float>(row)[head]);
        own_lse = shares.lse;
        T* values = out.row<T>(row) + head * head_dim;
        const float* joining = other.row<float>(row) + head * head_dim;
        for (std::int64_t i = 0; i < head_dim; ++i)
          put(shares.own * value_of(values[i]) + shares.other * joining[i], values[i]);
      }
  });
}

}  // namespace

void attention_merge(const TensorView& other, const TensorView& other_lse, std::int64_t head_dim,
                     const TensorView& out, const TensorView& lse) {
  if (out.dtype == DType::f32)
    merge_rows<float>(other, other_lse, head_dim, out, lse);
  else
    merge_rows<BFloat16>(other, other_lse, head_dim, out, lse);
}

}  // namespace switchyard::kernels::cpu
