#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/sums/sums.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file once for every target.
#include "kernels/cpu/parallel.hpp"
#include "kernels/cpu/simd-inl.hpp"
#include "kernels/cpu/sums/sums.hpp"

HWY_BEFORE_NAMESPACE();
namespace switchyard::kernels::cpu::HWY_NAMESPACE {
namespace {

using DoubleLanes = hn::ScalableTag<double>;

HWY_INLINE hn::Vec<DoubleLanes> load_double(const float* from) {
  const DoubleLanes d;
  return hn::PromoteTo(d, hn::LoadU(hn::Rebind<float, DoubleLanes>(), from));
}

// The sum of one block, or of its squares.
template <bool squares>
double sum_block(const float* x, std::int64_t n) {
  const DoubleLanes d;
  const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const auto term = [](const float* from) HWY_ATTR {
    const auto v = load_double(from);
    return squares ? hn::Mul(v, v) : v;
  };
  auto s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0;
  std::int64_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    s0 = hn::Add(s0, term(x + i));
    s1 = hn::Add(s1, term(x + i + lanes));
    s2 = hn::Add(s2, term(x + i + 2 * lanes));
    s3 = hn::Add(s3, term(x + i + 3 * lanes));
  }
  double total = hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(s0, s1), hn::Add(s2, s3))));
  for (; i < n; ++i) {
    const double v = static_cast<double>(x[i]);
    total += squares ? v * v : v;
  }
  return total;
}

double block_sum(const float* x, std::int64_t n) {
  return sum_block<false>(x, n);
}
double block_squares(const float* x, std::int64_t n) {
  return sum_block<true>(x, n);
}

}  // namespace
}  // namespace switchyard::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include <array>
#include <numeric>

namespace switchyard::kernels::cpu {

HWY_EXPORT(block_sum);
HWY_EXPORT(block_squares);

namespace {

constexpr std::int64_t block = 4096;  // elements
constexpr std::int64_t blocks_at_once = 1024;

using BlockSum = double (*)(const float*, std::int64_t);

// The partial sums of so many blocks at a time stay on the stack.
double sum_run(const float* x, std::int64_t n, BlockSum sum_of_block) {
  std::array<double, blocks_at_once> partials;
  double total = 0;
  for (std::int64_t start = 0; start < n; start += block * blocks_at_once) {
    const std::int64_t size = std::min(n - start, block * blocks_at_once);
    const std::int64_t num_blocks = (size + block - 1) / block;
    parallel_blocks(num_blocks, block_elements / block, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t b = begin; b < end; ++b)
        partials[static_cast<std::size_t>(b)] =
            sum_of_block(x + start + b * block, std::min(block, size - b * block));
    });
    total = std::accumulate(partials.begin(), partials.begin() + num_blocks, total);
  }
  return total;
}

double sum_view(const TensorView& x, BlockSum sum_of_block) {
  if (x.is_contiguous()) return sum_run(x.as<float>(), x.numel(), sum_of_block);
  double total = 0;
  for (std::int64_t row = 0; row < x.rows(); ++row)
    total += sum_run(x.row<float>(row), x.cols(), sum_of_block);
  return total;
}

}  // namespace

void add_sum(const TensorView& values, double divisor, const TensorView& into) {
  *into.as<double>() += sum_view(values, HWY_DYNAMIC_DISPATCH(block_sum)) / divisor;
}

void add_sum_of_squares(std::span<const TensorView> tensors, const TensorView& into) {
  for (const TensorView& x : tensors)
    if (!x.empty()) *into.as<double>() += sum_view(x, HWY_DYNAMIC_DISPATCH(block_squares));
}

void add_quotients(const TensorView& values, double divisor, const TensorView& into) {
  const double* value = values.as<double>();
  double* sum = into.as<double>();
  for (std::int64_t i = 0; i < values.numel(); ++i) sum[i] += value[i] / divisor;
}

}  // namespace switchyard::kernels::cpu

#endif  // HWY_ONCE
