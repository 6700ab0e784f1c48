#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/attention/gated_sum.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file once for every target.
#include "kernels/cpu/attention/gated_sum.hpp"
#include "kernels/cpu/parallel.hpp"
#include "kernels/cpu/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace switchyard::kernels::cpu::HWY_NAMESPACE {
namespace {

// A head of a token: `distance` elements lie between its branches, `heads` between their gates.
template <class T>
void sum_of_branches(const T* branch, std::int64_t distance, const float* gate, std::int64_t heads,
                     std::int64_t num_branches, std::int64_t head_dim, T* out) {
  for_lanes(head_dim, [=](auto d, std::int64_t i) HWY_ATTR {
    auto sum = hn::Zero(d);
    for (std::int64_t c = 0; c < num_branches; ++c)
      sum = hn::MulAdd(hn::Set(d, gate[c * heads]), load(d, branch + c * distance + i), sum);
    store(d, sum, out + i);
  });
}

template <class T>
void sum_rows(const TensorView& branches, const TensorView& gates, std::int64_t num_heads,
              const TensorView& out, std::int64_t begin, std::int64_t end) {
  const Rows<T> in = rows_of<T>(branches), to = rows_of<T>(out);
  const std::int64_t head_dim = out.cols() / num_heads;
  for (std::int64_t t = begin; t < end; ++t)
    for (std::int64_t h = 0; h < num_heads; ++h)
      sum_of_branches(in[t] + h * head_dim, out.rows() * branches.row_stride,
                      gates.row<float>(t) + h, num_heads, branches.rows() / out.rows(), head_dim,
                      to[t] + h * head_dim);
}

void sum(const TensorView& branches, const TensorView& gates, std::int64_t num_heads,
         const TensorView& out, std::int64_t begin, std::int64_t end) {
  const auto rows = out.dtype == DType::f32 ? sum_rows<float> : sum_rows<BFloat16>;
  rows(branches, gates, num_heads, out, begin, end);
}

}  // namespace
}  // namespace switchyard::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace switchyard::kernels::cpu {

HWY_EXPORT(sum);

void gated_sum(const TensorView& branches, const TensorView& gates, std::int64_t num_heads,
               const TensorView& out) {
  parallel_rows(out.rows(), branches.numel() / out.rows(),
                [&](std::int64_t begin, std::int64_t end) {
                  HWY_DYNAMIC_DISPATCH(sum)(branches, gates, num_heads, out, begin, end);
                });
}

}  // namespace switchyard::kernels::cpu

#endif  // HWY_ONCE
