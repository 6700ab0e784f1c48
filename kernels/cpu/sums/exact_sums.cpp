#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/sums/exact_sums.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, which includes this file once for every target.
#include <array>

#include "kernels/cpu/simd-inl.hpp"
#include "kernels/cpu/sums/sums.hpp"

HWY_BEFORE_NAMESPACE();
namespace switchyard::kernels::cpu::HWY_NAMESPACE {
namespace {

using DoubleLanes = hn::ScalableTag<double>;

// Adding 1.5 * 2^52 quanta and taking them away again rounds to a multiple of a quantum.
HWY_INLINE hn::Vec<DoubleLanes> rounded_to(hn::Vec<DoubleLanes> value, double quantum) {
  const auto magic = hn::Set(DoubleLanes(), 0x1.8p52 * quantum);
  return hn::Sub(hn::Add(value, magic), magic);
}

// Rounding changes nothing: all that is added is a multiple of a quantum, so lanes need no order.
void add_squares(const float* x, std::int64_t n, const SquareParts& parts,
                 std::array<double, 3>& sums) {
  const DoubleLanes d;
  const std::int64_t lanes = lanes_of(d);
  auto s0 = hn::Zero(d), s1 = s0, s2 = s0;
  const auto add = [&](hn::Vec<DoubleLanes> value) HWY_ATTR {
    const auto square = hn::Mul(value, value);
    const auto first = rounded_to(square, parts.quanta[0]);
    const auto rest = hn::Sub(square, first);
    const auto second = rounded_to(rest, parts.quanta[1]);
    s0 = hn::Add(s0, first);
    s1 = hn::Add(s1, second);
    s2 = hn::Add(s2, rounded_to(hn::Sub(rest, second), parts.quanta[2]));
  };
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes)
    add(hn::PromoteTo(d, hn::LoadU(hn::Rebind<float, DoubleLanes>(), x + i)));
  for (; i < n; ++i)
    add(hn::IfThenElseZero(hn::FirstN(d, 1), hn::Set(d, static_cast<double>(x[i]))));
  sums[0] += hn::GetLane(hn::SumOfLanes(d, s0));
  sums[1] += hn::GetLane(hn::SumOfLanes(d, s1));
  sums[2] += hn::GetLane(hn::SumOfLanes(d, s2));
}

}  // namespace
}  // namespace switchyard::kernels::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include <algorithm>
#include <vector>

#include "kernels/cpu/parallel.hpp"
#include "kernels/cpu/sums/exact_term.hpp"
#include "kernels/cpu/sums/fixed_point.hpp"

namespace switchyard::kernels::cpu {

HWY_EXPORT(add_squares);

namespace {

constexpr std::int64_t block = 4096;  // elements that are converted at once

using Parts = std::array<double, 3>;

Parts squares_of(const std::int64_t* numbers, std::int64_t n, int fraction_bits,
                 const SquareParts& parts) {
  std::array<float, block> values;
  Parts sums{};
  for (std::int64_t begin = 0; begin < n; begin += block) {
    const std::int64_t size = std::min(block, n - begin);
    from_fixed(numbers + begin, size, fraction_bits, values.data());
    HWY_DYNAMIC_DISPATCH(add_squares)(values.data(), size, parts, sums);
  }
  return sums;
}

}  // namespace

void add_exact_sum(const TensorView& values, const ExactTerms& terms, const TensorView& into) {
  double sum = 0;
  for (std::int64_t row = 0; row < values.rows(); ++row) {
    const float* value = values.row<float>(row);
    for (std::int64_t i = 0; i < values.cols(); ++i)
      sum += exact_term(static_cast<double>(value[i]), terms);
  }
  *into.as<double>() += sum;
}

void add_exact_sum_of_squares(std::span<const TensorView> tensors, int fraction_bits,
                              const SquareParts& parts, const TensorView& into) {
  constexpr std::int64_t piece = 64 * block;
  double* const sum = into.as<double>();
  for (const TensorView& x : tensors) {
    if (x.empty()) continue;
    const std::int64_t num_pieces = (x.numel() + piece - 1) / piece;
    std::vector<Parts> of_piece(static_cast<std::size_t>(num_pieces));
    for_each_piece(num_pieces, [&](std::int64_t i, int) {
      of_piece[static_cast<std::size_t>(i)] =
          squares_of(x.as<std::int64_t>() + i * piece, std::min(piece, x.numel() - i * piece),
                     fraction_bits, parts);
    });
    for (const Parts& here : of_piece)
      for (std::size_t part = 0; part < here.size(); ++part) sum[part] += here[part];
  }
}

void count_nonzero(const TensorView& numbers, const TensorView& into) {
  const std::span<const std::int32_t> all = numbers.span<std::int32_t>();
  *into.as<double>() += static_cast<double>(
      std::ranges::count_if(all, [](std::int32_t number) { return number != 0; }));
}

}  // namespace switchyard::kernels::cpu

#endif  // HWY_ONCE
