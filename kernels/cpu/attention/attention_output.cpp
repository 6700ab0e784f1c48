#include "kernels/cpu/attention/attention_output.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "kernels/cpu/attention/attention.hpp"
#include "kernels/cpu/attention/softmax.hpp"
#include "kernels/cpu/parallel.hpp"

namespace switchyard::kernels::cpu {

namespace {

constexpr float minus_infinity = -std::numeric_limits<float>::infinity();

// lse and shares of the two outputs when `other` keys join those of `before`: exponentials of
// differences only, so nothing overflows.
struct Joined {
  float lse;
  float share_before;
  float share_other;
};
Joined join(float before, float other) {
  if (before == minus_infinity) return {other, 0.0f, 1.0f};
  const float larger = std::max(before, other);
  const float smaller_exp = std::exp(std::min(before, other) - larger);
  const float smaller_share = smaller_exp / (1.0f + smaller_exp);
  const float larger_share = 1.0f / (1.0f + smaller_exp);
  return {larger + std::log1p(smaller_exp), before < other ? smaller_share : larger_share,
          before < other ? larger_share : smaller_share};
}

}  // namespace

void write_output_row(const SoftmaxRow& row, std::int64_t head_dim, Merge merge, DType dtype,
                      std::byte* target, float& lse) {
  if (row.sum == 0) {
    if (merge == Merge::with_before) return;
    std::fill_n(target, head_dim * size_of(dtype), std::byte{0});
    lse = minus_infinity;
    return;
  }
  const float row_lse = row.max * std::numbers::ln2_v<float> + std::log(row.sum);
  if (merge == Merge::replace) {
    scale_into(row.out, 1.0f / row.sum, dtype, target, head_dim);
    lse = row_lse;
    return;
  }
  const Joined joined = join(lse, row_lse);
  lse = joined.lse;
  const float share = joined.share_other / row.sum;
  auto* out = reinterpret_cast<float*>(target);
  for (std::int64_t i = 0; i < head_dim; ++i)
    out[i] = joined.share_before * out[i] + share * row.out[i];
}

void write_gradient_row(const float* source, float factor, std::int64_t n, Merge merge, DType dtype,
                        std::byte* target) {
  if (merge == Merge::replace) return scale_into(source, factor, dtype, target, n);
  auto* sum = reinterpret_cast<float*>(target);
  for (std::int64_t i = 0; i < n; ++i) sum[i] += factor * source[i];
}

void attention_delta(const TensorView& out, const TensorView& dout, std::int64_t head_dim,
                     const TensorView& delta) {
  const auto head_of = [head_dim](const TensorView& view, std::int64_t row, std::int64_t head) {
    return view.kernel_bytes() + (row * view.row_stride + head * head_dim) * size_of(view.dtype);
  };
  parallel_rows(out.rows(), out.cols(), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row)
      for (std::int64_t head = 0; head < delta.cols(); ++head)
        delta.row<float>(row)[head] =
            dot(dout.dtype, head_of(dout, row, head), out.dtype, head_of(out, row, head), head_dim);
  });
}

}  // namespace switchyard::kernels::cpu
