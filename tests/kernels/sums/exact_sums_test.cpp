// Sums without an order (kernels/gradient_sum.hpp, exact sums of kernels/sums/sums.hpp): right, the
// same bits however their terms come, and told when they cannot hold a term.
#include <array>
#include <cmath>
#include <limits>
#include <numeric>

#include "kernels/attention/attention_sink.hpp"
#include "kernels/gradient_sum.hpp"
#include "kernels/kernel_test.hpp"
#include "kernels/products/grouped_linear.hpp"
#include "kernels/products/linear.hpp"
#include "kernels/routing/balance.hpp"
#include "kernels/rows/embedding.hpp"
#include "kernels/rows/rms_norm.hpp"
#include "kernels/sums/sums.hpp"
#include "kernels/threads.hpp"

namespace switchyard::test {
namespace {

using kernels::ExactSum;
using kernels::GradientSum;

constexpr int fraction_bits = 48;

// A sum that starts at 0, and its flag.
class Sum {
 public:
  Sum(Shape shape, std::int64_t unit_rows, double most = 16384)
      : sum_(tested(), Purpose::gradient, DType::i64, shape),
        overflow_(tested(), Purpose::gradient, DType::i32, {1}),
        rule_{.fraction_bits = fraction_bits,
              .most_of_unit = most,
              .unit_rows = unit_rows,
              .overflow = overflow_} {
    kernels::reserve_exact_sums(tested());
    std::ranges::fill(sum_->span<std::int64_t>(), 0);
    *overflow_->as<std::int32_t>() = 0;
  }
  operator GradientSum() const { return {sum_, rule_}; }
  Doubles values() const {
    Doubles result;
    for (const std::int64_t number : sum_->span<std::int64_t>())
      result.push_back(std::ldexp(static_cast<double>(number), -fraction_bits));
    return result;
  }
  bool overflowed() const { return *overflow_->as<std::int32_t>() != 0; }

 private:
  Tensor sum_, overflow_;
  ExactSum rule_;
};

TensorView rows(const Operand& x, std::int64_t begin, std::int64_t end) {
  return x.view().slice_rows(begin, end);
}

// What add(sum, begin, end) gives for all rows at once, unit after unit from the last one on, and
// with other numbers of threads: the same bits. Returns them.
Doubles expect_no_order(
    const Shape& shape, std::int64_t num_rows, std::int64_t unit_rows,
    const std::function<void(const GradientSum&, std::int64_t, std::int64_t)>& add) {
  const Sum whole(shape, unit_rows);
  add(whole, 0, num_rows);
  const int threads = kernels::num_threads();
  for (const int other : {1, 3}) {
    kernels::set_num_threads(other);
    const Sum backwards(shape, unit_rows);
    for (std::int64_t begin = (num_rows - 1) / unit_rows * unit_rows; begin >= 0;
         begin -= unit_rows)
      add(backwards, begin, std::min(begin + unit_rows, num_rows));
    EXPECT_EQ(backwards.values(), whole.values()) << other << " threads";
    EXPECT_FALSE(backwards.overflowed());
  }
  kernels::set_num_threads(threads);
  EXPECT_FALSE(whole.overflowed());
  return whole.values();
}

struct Sizes {
  std::int64_t num_rows, unit_rows, out, in;
};
constexpr std::array<Sizes, 5> all_sizes = {
    {{1, 1, 1, 3}, {48, 2, 33, 16}, {300, 100, 40, 60}, {2600, 1300, 24, 40}, {192, 64, 136, 264}}};

TEST(ExactSums, WeightGradientsHaveNoOrder) {
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const auto& [num_rows, unit_rows, out, in] : all_sizes) {
      const Operand dy(dtype, num_rows, out, 1, 3), x(dtype, num_rows, in, 2, 5);
      const Doubles sums = expect_no_order(
          {out, in}, num_rows, unit_rows,
          [&](const GradientSum& dw, std::int64_t begin, std::int64_t end) {
            kernels::linear_backward_weight(rows(dy, begin, end), rows(x, begin, end), dw);
          });
      const Doubles dys = dy.values(), xs = x.values();
      for (std::int64_t i = 0; i < out; ++i)
        for (std::int64_t j = 0; j < in; ++j) {
          double wanted = 0, size = 0;
          for (std::int64_t t = 0; t < num_rows; ++t) {
            const double term = dys[static_cast<std::size_t>(t * out + i)] *
                                xs[static_cast<std::size_t>(t * in + j)];
            wanted += term;
            size += std::abs(term);
          }
          // fp32 sums of at most 1024 terms, in blocks; then 2^-49 a term of the sum.
          ASSERT_NEAR(sums[static_cast<std::size_t>(i * in + j)], wanted,
                      64 * 0x1p-24 * size + 1e-12);
        }
    }
}

TEST(ExactSums, OfGroupsAreThoseOfTheirUnitsWhereverTheseLie) {
  const std::int64_t out = 40, in = 72;
  // Two groups of three units, some without rows, one longer than what is summed in fp32.
  const std::vector<std::int32_t> offsets = {0, 5, 5, 1205, 1205, 1300, 1311};
  const Operand dy(DType::f32, 1311, out, 1), x(DType::f32, 1311, in, 2);
  const Sum together({2, out, in}, 1300);
  kernels::grouped_linear_backward_weight(dy, x, Operand::of_ints(offsets).view().flat(), together);
  Doubles wanted;
  for (std::size_t group = 0; group < 2; ++group) {
    const Sum alone({out, in}, 1300);
    for (std::size_t unit = 3; unit-- > 0;) {
      const std::int64_t begin = offsets[group * 3 + unit], end = offsets[group * 3 + unit + 1];
      kernels::linear_backward_weight(rows(dy, begin, end), rows(x, begin, end), alone);
    }
    const Doubles values = alone.values();
    wanted.insert(wanted.end(), values.begin(), values.end());
  }
  EXPECT_EQ(together.values(), wanted);
}

// Whatever blocks of rows a processor takes, units are cut where their own rows say.
TEST(ExactSums, OfBlocksOfRowsAreThoseOfAllRows) {
  const std::int64_t out = 24, in = 16;
  const std::vector<std::int32_t> offsets = {0, 700, 3300, 3300, 3400, 3900, 4100};
  const Operand dy(DType::f32, 4100, out, 1), x(DType::f32, 4100, in, 2);
  const Operand by_unit = Operand::of_ints(offsets);
  const Sum whole({2, out, in}, 4096);
  kernels::grouped_linear_backward_weight(dy, x, by_unit.view().flat(), whole);
  for (const std::int64_t most_rows : {1024, 1500, 2048}) {
    const Sum in_blocks({2, out, in}, 4096);
    const GradientSum dw = in_blocks;
    const Tensor cut(tested(), Purpose::workspace, DType::i32, {7}),
        groups(tested(), Purpose::workspace, DType::i32, {3}),
        units(tested(), Purpose::workspace, DType::i32, {7});
    kernels::for_each_row_block(
        tested(), by_unit.view().flat(), 4100, 6, most_rows, kernels::term_rows, cut,
        [&](const kernels::RowBlock& rows_of_units) {
          const kernels::UnitBlock block = kernels::by_group(rows_of_units, 3, 2, groups, units);
          const std::int64_t first = block.groups.first_group,
                             end = first + block.groups.num_groups;
          EXPECT_EQ(block.groups.offsets.numel(), end - first + 1);
          kernels::grouped_linear_backward_weight(rows(dy, block.groups.begin, block.groups.end),
                                                  rows(x, block.groups.begin, block.groups.end),
                                                  block.units,
                                                  dw.at(dw.view.slice_rows(first, end)));
        });
    EXPECT_EQ(in_blocks.values(), whole.values()) << most_rows;
  }
}

TEST(ExactSums, OfNormsAndEmbeddingsHaveNoOrder) {
  const std::int64_t num_rows = 420, unit_rows = 140, hidden = 37;
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Operand dy(dtype, num_rows, hidden, 1), x(dtype, num_rows, hidden, 2);
    const Operand y(dtype, num_rows, hidden, 3), dx(dtype, num_rows, hidden, 4);
    const Operand weight = vector_of(hidden, 5), rstd = vector_of(num_rows, 6);
    kernels::rms_norm_forward(x, weight, 1e-5f, y, rstd);
    const Tensor in_fp32(tested(), Purpose::gradient, DType::f32, {hidden});
    std::ranges::fill(in_fp32->span<float>(), 0.0f);
    const Tensor room(
        tested(), Purpose::workspace, DType::u8,
        {std::max(kernels::rms_norm_workspace_bytes(tested(), hidden), 3 * 12 * hidden)});
    const auto norm = [&](const GradientSum& dweight, std::int64_t begin, std::int64_t end) {
      kernels::rms_norm_backward(rows(dy, begin, end), rows(x, begin, end), weight,
                                 rstd.view().slice_rows(begin, end), {}, rows(dx, begin, end),
                                 dweight, room);
    };
    const Doubles sums = expect_no_order({hidden}, num_rows, unit_rows, norm);
    norm(GradientSum(in_fp32), 0, num_rows);
    for (std::int64_t i = 0; i < hidden; ++i)
      EXPECT_NEAR(sums[static_cast<std::size_t>(i)], static_cast<double>(in_fp32->as<float>()[i]),
                  2e-4);

    std::vector<std::int32_t> ids(static_cast<std::size_t>(num_rows));
    for (std::size_t t = 0; t < ids.size(); ++t) ids[t] = static_cast<std::int32_t>(t * 7 % 5);
    const Operand tokens = Operand::of_ints(ids);
    const Doubles table =
        expect_no_order({5, hidden}, num_rows, unit_rows,
                        [&](const GradientSum& dtable, std::int64_t begin, std::int64_t end) {
                          kernels::embedding_backward(rows(tokens, begin, end).flat(),
                                                      rows(dy, begin, end), dtable);
                        });
    Doubles wanted(table.size());
    const Doubles dys = dy.values();
    for (std::size_t i = 0; i < dys.size(); ++i) {
      const std::size_t cols = static_cast<std::size_t>(hidden);
      wanted[static_cast<std::size_t>(ids[i / cols]) * cols + i % cols] += dys[i];
    }
    // Each row was rounded to a multiple of 2^-48; the values have no smaller digits.
    EXPECT_EQ(table, wanted);
  }
}

TEST(ExactSums, OfSinksHaveNoOrder) {
  const std::int64_t num_rows = 60, heads = 3;
  const Operand sinks(DType::f32, heads, 2, 1), lse(DType::f32, num_rows, heads, 2);
  const Operand delta(DType::f32, num_rows, heads, 3), in_fp32(DType::f32, heads, 2, 4);
  in_fp32.set(Doubles(6, 0.0));
  const auto add = [&](const GradientSum& dsinks, std::int64_t begin, std::int64_t end) {
    kernels::attention_sink_backward(sinks, rows(lse, begin, end), rows(delta, begin, end), dsinks);
  };
  const Doubles sums = expect_no_order({heads, 2}, num_rows, 20, add);
  add(GradientSum(in_fp32.view()), 0, num_rows);
  const Doubles wanted = in_fp32.values();
  for (std::size_t i = 0; i < wanted.size(); ++i)
    EXPECT_NEAR(sums[i], wanted[i], 1e-6 * (1 + std::abs(wanted[i])));
}

// From 1e-12 to 1e4, to half of the last digit, if there is one unit a step.
TEST(ExactSums, HoldTheSizesOfGradientsToTheirStatedError) {
  const double most = std::ldexp(1.0, 62 - fraction_bits);
  for (double size = 1e-12; size < 1.01e4; size *= 10)
    for (const double sign : {1.0, -1.0}) {
      const Operand dy(DType::f32, 1, 1, 1), x(DType::f32, 1, 1, 2);
      dy.set({sign * size});
      x.set({1});
      const Sum sum({1, 1}, 1, most);
      kernels::linear_backward_weight(dy, x, sum);
      EXPECT_FALSE(sum.overflowed()) << size;
      EXPECT_LE(std::abs(sum.values()[0] - dy.values()[0]), 0x1p-49) << size;
    }
}

TEST(ExactSums, TellWhatTheyCannotHoldAndLeaveItOut) {
  constexpr double inf = std::numeric_limits<double>::infinity();
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  for (const double bad : {16.5, -16.5, 1e30, inf, nan}) {
    const Operand dy(DType::f32, 2, 19, 1), x(DType::f32, 2, 19, 2);
    Doubles values(38, 0.25);
    values[18] = bad;  // of the first unit
    dy.set(values);
    x.set(Doubles(38, 1.0));
    const Sum product({19, 19}, 1, 16), table({2, 19}, 1, 16);
    kernels::linear_backward_weight(dy, x, product);
    kernels::embedding_backward(Operand::of_ints({0, 1}).view().flat(), dy, table);
    EXPECT_TRUE(product.overflowed() && table.overflowed()) << bad;
    EXPECT_EQ(table.values()[18], 0) << bad;
    EXPECT_EQ(table.values()[17], 0.25);
  }
}

TEST(ExactSums, InDoubleHaveNoOrder) {
  const std::int64_t n = 5000;
  const Operand x = vector_of(n, 3);
  const kernels::ExactTerms terms{4096, kernels::exact_quantum(4096, 1e6)};
  const auto sum_of = [&](const std::vector<std::pair<std::int64_t, std::int64_t>>& parts) {
    const Tensor into(tested(), Purpose::workspace, DType::f64, {1});
    *into->as<double>() = 0;
    for (const auto& [begin, end] : parts)
      kernels::add_exact_sum(x.view().slice_rows(begin, end), terms, into);
    return *into->as<double>();
  };
  const double whole = sum_of({{0, n}});
  EXPECT_EQ(whole, sum_of({{4000, n}, {1, 4000}, {0, 1}}));
  const Doubles values = x.values();
  const double wanted = std::accumulate(values.begin(), values.end(), 0.0);
  EXPECT_NEAR(whole, wanted, n * terms.quantum / 2);
  const Operand large = vector_of(1);
  large.set({4097});
  const Tensor into(tested(), Purpose::workspace, DType::f64, {1});
  *into->as<double>() = 0;
  kernels::add_exact_sum(large, terms, into);
  EXPECT_TRUE(std::isnan(*into->as<double>()));
}

TEST(ExactSums, OfSquaresHaveNoOrderAndKeepSmallGradients) {
  for (const double size : {1e-7, 1e-3, 30.0}) {
    const std::int64_t n = 9001;
    const Tensor numbers(tested(), Purpose::gradient, DType::i64, {n});
    const Doubles values = vector_of(n, 3).values();
    double wanted = 0;
    for (std::int64_t i = 0; i < n; ++i) {
      const double number =
          std::round(std::ldexp(size * values[static_cast<std::size_t>(i)], fraction_bits));
      numbers->as<std::int64_t>()[i] = static_cast<std::int64_t>(number);
      const auto value =
          static_cast<double>(static_cast<float>(std::ldexp(number, -fraction_bits)));
      wanted += value * value;
    }
    const kernels::SquareParts parts(1e9);
    const auto squares = [&](const std::vector<TensorView>& tensors) {
      const Tensor into(tested(), Purpose::workspace, DType::f64, {3});
      std::ranges::fill(into->span<double>(), 0.0);
      kernels::add_exact_sum_of_squares(tensors, fraction_bits, parts, into);
      const std::span<const double> sums = into->span<double>();
      return Doubles{sums.begin(), sums.end()};
    };
    const Doubles whole = squares({numbers});
    EXPECT_EQ(whole, squares({numbers->slice_rows(4097, n), numbers->slice_rows(0, 7),
                              numbers->slice_rows(7, 4097)}));
    EXPECT_NEAR(whole[0] + (whole[1] + whole[2]), wanted, 1e-12 * wanted + n * parts.quanta[2] / 2);
  }
}

TEST(ExactSums, BalanceOfSplitSequencesIsThatOfWholeOnes) {
  const std::int64_t length = 60, experts = 5;
  const Operand scores(DType::f32, 2 * length, experts, 1);
  std::vector<std::int32_t> chosen(static_cast<std::size_t>(2 * length));
  for (std::size_t t = 0; t < chosen.size(); ++t) chosen[t] = static_cast<std::int32_t>(t * t % 5);
  const Operand indices = Operand::of_ints(chosen);
  const kernels::ExactTerms score{64, kernels::exact_quantum(64, length)};
  const auto statistics = [&](std::int64_t sequence_length) {
    const std::int64_t num = 2 * length / sequence_length;
    const Tensor counts(tested(), Purpose::workspace, DType::i32, {num, experts});
    const Tensor sums(tested(), Purpose::workspace, DType::f64, {num, experts});
    kernels::exact_balance_statistics(scores, indices, sequence_length, score, counts, sums);
    const std::span<const double> values = sums->span<double>();
    return Doubles{values.begin(), values.end()};
  };
  const Doubles whole = statistics(length), halves = statistics(length / 2);
  for (std::size_t s = 0; s < 2; ++s)
    for (std::size_t e = 0; e < 5; ++e)
      EXPECT_EQ(whole[s * 5 + e], halves[(2 * s + 1) * 5 + e] + halves[2 * s * 5 + e]);
}

}  // namespace
}  // namespace switchyard::test
