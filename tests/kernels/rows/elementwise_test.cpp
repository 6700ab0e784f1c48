#include "kernels/rows/elementwise.hpp"

#include <bit>
#include <cmath>
#include <cstring>
#include <set>

#include "kernels/kernel_test.hpp"
#include "tests/support/tested_device.hpp"

namespace switchyard::test {
namespace {

TEST(Elementwise, AddScaleZero) {
  for_each_case([](const Case& c) {
    const Operand a(c.dtype, c.rows, c.cols, 1, c.gap), b(c.dtype, c.rows, c.cols, 2, c.gap);
    Operand wanted(c.dtype, c.rows, c.cols);
    Doubles sum = a.values();
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += b.values()[i];
    wanted.set(sum);  // a sum of two is exact in double: rounding once is what the kernel must do
    const Operand out(c.dtype, c.rows, c.cols, 3, c.gap);
    kernels::add(a, b, out);
    EXPECT_EQ(out.values(), wanted.values());
    kernels::add(a, b, b);
    EXPECT_EQ(b.values(), wanted.values());
    kernels::fill_zero(out);
    EXPECT_EQ(out.values(), Doubles(out.values().size(), 0.0));
    EXPECT_TRUE(out.gaps_untouched() && b.gaps_untouched());
    if (c.dtype != DType::f32) return;
    Doubles halves = a.values();
    for (double& value : halves) value *= 0.5;
    kernels::scale(a, 0.5f);
    expect_close(a, halves, 0);
  });
}

TEST(Elementwise, CopyConverts) {
  for_each_case([](const Case& c) {
    for (DType to : {DType::f32, DType::bf16}) {
      const Operand src(c.dtype, c.rows, c.cols, 1, c.gap), dst(to, c.rows, c.cols, 2, 2 * c.gap);
      Operand wanted(to, c.rows, c.cols);
      wanted.set(src.values());
      kernels::copy(src, dst);
      EXPECT_EQ(dst.values(), wanted.values());
      EXPECT_TRUE(dst.gaps_untouched());
    }
  });
  const Operand ints = Operand::of_ints({1, -2, 3}), other = Operand::of_ints({0, 0, 0});
  kernels::copy(ints, other);
  EXPECT_EQ(other.ints(), ints.ints());
}

// Every upper half with the lower halves that decide the rounding, NaN of all kinds included. A
// card has one NaN.
TEST(Elementwise, RoundsToBf16AsTheScalarDoes) {
  constexpr std::array<std::uint32_t, 6> lower = {0, 1, 0x7fff, 0x8000, 0x8001, 0xffff};
  const Tensor from(tested(), Purpose::workspace, DType::f32, {65536 * 6});
  const Tensor to(tested(), Purpose::workspace, DType::bf16, {65536 * 6});
  const auto values = from->span<float>();
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = std::bit_cast<float>(static_cast<std::uint32_t>(i / 6) << 16 | lower[i % 6]);
  kernels::copy(from, to);
  const auto rounded = to->span<BFloat16>();
  for (std::size_t i = 0; i < values.size(); ++i) {
    // A signalling NaN may be quieted on its way through a float, so the bits come from the source.
    std::uint32_t bits = 0;
    std::memcpy(&bits, from->data + 4 * i, 4);
    const BFloat16 wanted = to_bf16(std::bit_cast<float>(bits));
    if (is_tested_on_card() && std::isnan(to_float(wanted)))
      ASSERT_TRUE(std::isnan(to_float(rounded[i]))) << i;
    else
      ASSERT_EQ(rounded[i].bits, wanted.bits) << i;
  }
  // The vector loop sees whole lanes; one element at a time is another path.
  for (std::size_t i = 0; i < values.size(); i += 1234) {
    const auto begin = static_cast<std::int64_t>(i);
    const Tensor one(tested(), Purpose::workspace, DType::bf16, {1});
    kernels::copy(from->slice_rows(begin, begin + 1), one);
    ASSERT_EQ(one->span<BFloat16>()[0].bits, rounded[i].bits) << i;
  }
}

Tensor ids(std::vector<std::int64_t> values) {
  Tensor tensor(tested(), Purpose::workspace, DType::i64,
                {static_cast<std::int64_t>(values.size())});
  std::copy(values.begin(), values.end(), tensor->span<std::int64_t>().begin());
  return tensor;
}

// i32: first + t % length.
Tensor positions(std::int64_t num_tokens, std::int64_t length, std::int64_t first = 0) {
  Tensor tensor(tested(), Purpose::workspace, DType::i32, {num_tokens});
  for (std::int64_t t = 0; t < num_tokens; ++t)
    tensor->as<std::int32_t>()[t] = static_cast<std::int32_t>(first + t % length);
  return tensor;
}

Operand ones(DType dtype, std::int64_t rows, std::int64_t cols, std::int64_t gap = 0) {
  Operand x(dtype, rows, cols, 1, gap);
  x.set(Doubles(static_cast<std::size_t>(rows * cols), 1.0));
  return x;
}

TEST(Dropout, KeepsTheRightShareAndScalesIt) {
  for (DType dtype : {DType::f32, DType::bf16}) {
    const Operand x = ones(dtype, 400, 130, 3);
    const Tensor at = positions(400, 100);
    kernels::dropout(x, 0.25f, {.key = {1, 2}, .step = 5, .sequence_length = 100, .positions = at},
                     ids({7, 8, 9, 1 << 30}));
    const double kept_value = dtype == DType::f32 ? 1 / 0.75f : to_float(to_bf16(1 / 0.75f));
    double kept = 0;
    for (double value : x.values()) {
      ASSERT_TRUE(value == 0 || std::abs(value - kept_value) < 1e-6);
      kept += value != 0;
    }
    // 52000 draws: five standard deviations are 0.0095.
    EXPECT_NEAR(kept / 52000, 0.75, 0.0095);
    EXPECT_TRUE(x.gaps_untouched());
  }
}

// The same on every device and for every type: element h of a row is kept if number h % 4 of the
// counter of its group of four is at least the rate (kernels/rows/dropout_counter.hpp).
TEST(Dropout, MaskIsPhiloxOfTheCounter) {
  const RandomKey key{11, 12};
  const std::vector<std::int64_t> sequences = {7, (std::int64_t{1} << 39) + 5};
  const std::uint32_t step = 0xfffffff0u, length = 3, copies = 2, first = (1u << 24) - 3;
  const Tensor at = positions(6, length, first), of_sequences = ids(sequences);
  for (DType dtype : {DType::f32, DType::bf16})
    for (std::int64_t cols : {1, 8, 21, 2056})
      for (std::int64_t gap : {0, 3}) {
        const Operand x = ones(dtype, 12, cols, gap);
        kernels::dropout(x, 0.5f,
                         {.key = key,
                          .step = step,
                          .sequence_length = length,
                          .positions = at,
                          .copies = copies},
                         of_sequences);
        Doubles wanted;
        for (std::uint32_t row = 0; row < 12; ++row)
          for (std::uint32_t h = 0; h < cols; ++h) {
            const std::uint32_t token = row / copies;
            const auto sequence = static_cast<std::uint64_t>(sequences[token / length]);
            const auto words = random_words(
                key, {step, static_cast<std::uint32_t>(sequence),
                      (first + token % length) | static_cast<std::uint32_t>(sequence >> 32) << 24,
                      h / 4 | row % copies << 24});
            wanted.push_back(uniform(words[h % 4]) >= 0.5f ? 2 : 0);
          }
        EXPECT_EQ(x.values(), wanted);
        EXPECT_TRUE(x.gaps_untouched());
      }
}

// The same tokens in another layout: sequences in another order, cut in two at position 3.
TEST(Dropout, DependsOnTheTokenAlone) {
  const Tensor six = positions(12, 6), three = positions(6, 3, 3);
  const kernels::DropoutSite whole = {
      .key = {3, 4}, .step = 9, .sequence_length = 6, .positions = six, .copies = 2};
  const Operand x = ones(DType::f32, 24, 7);  // sequences 10 and 20
  kernels::dropout(x, 0.5f, whole, ids({10, 20}));
  const Operand late = ones(DType::f32, 12, 7);  // positions 3 ... 5 of 20, then of 10
  kernels::dropout(
      late, 0.5f, {.key = {3, 4}, .step = 9, .sequence_length = 3, .positions = three, .copies = 2},
      ids({20, 10}));
  const Doubles all = x.values(), part = late.values();
  for (std::size_t i = 0; i < 6 * 7; ++i) {
    EXPECT_EQ(part[i], all[(12 + 6) * 7 + i]);
    EXPECT_EQ(part[6 * 7 + i], all[6 * 7 + i]);
  }
}

// Any change of key, step, sequence, position or copy gives another mask.
TEST(Dropout, MasksDiffer) {
  const auto mask = [](RandomKey key, std::int64_t step, std::int64_t sequence,
                       std::int64_t position, int copies) {
    const Operand x = ones(DType::f32, copies, 64);
    const Tensor at = positions(1, 1, position);
    kernels::dropout(x, 0.5f, {.key = key, .step = step, .positions = at, .copies = copies},
                     ids({sequence}));
    const Doubles values = x.values();
    return Doubles(values.end() - 64, values.end());  // of the last copy
  };
  const std::int64_t far = (std::int64_t{1} << 33) + 7;  // equals 7 in its lower half
  const std::set<Doubles> masks = {mask({1, 2}, 3, 7, 5, 1), mask({2, 2}, 3, 7, 5, 1),
                                   mask({1, 3}, 3, 7, 5, 1), mask({1, 2}, 4, 7, 5, 1),
                                   mask({1, 2}, 3, 8, 5, 1), mask({1, 2}, 3, 7, 6, 1),
                                   mask({1, 2}, 3, 7, 5, 2), mask({1, 2}, 3, far, 5, 1)};
  EXPECT_EQ(masks.size(), 8u);
  EXPECT_EQ(mask({1, 2}, 3, 7, 5, 1), mask({1, 2}, 3, 7, 5, 1));
}

TEST(Dropout, RateZeroChangesNothing) {
  const Operand x(DType::f32, 3, 5);
  const Doubles before = x.values();
  kernels::dropout(x, 0, {.sequence_length = 3}, ids({1}));
  EXPECT_EQ(x.values(), before);
  EXPECT_THROW(kernels::dropout(x, 1, {.sequence_length = 3}, ids({1})), InternalError);
}

// Many blocks, whole accesses and a last one that is not, types of every size.
TEST(Elementwise, LargeSizes) {
  for (std::int64_t cols : {4096, 4099}) {
    const Operand a(DType::f32, 130, cols, 1), b(DType::f32, 130, cols, 2),
        sum(DType::f32, 130, cols);
    const Operand low(DType::bf16, 130, cols), back(DType::f32, 130, cols);
    kernels::add(a, b, sum);
    kernels::copy(sum, low);
    kernels::copy(low, back);
    const Doubles x = a.values(), y = b.values(), total = sum.values();
    for (std::size_t i = 0; i < x.size(); ++i)
      ASSERT_EQ(total[i], static_cast<double>(static_cast<float>(x[i] + y[i]))) << i;
    Operand wanted(DType::bf16, 130, cols);
    wanted.set(total);
    EXPECT_EQ(low.values(), wanted.values());
    EXPECT_EQ(back.values(), wanted.values());
  }
  const Tensor numbers(tested(), Purpose::workspace, DType::i32, {100001});
  kernels::iota(numbers);
  for (std::int32_t i = 0; i < 100001; ++i) ASSERT_EQ(numbers->as<std::int32_t>()[i], i);
  const Tensor wide(tested(), Purpose::workspace, DType::f64, {7, 33});
  std::fill_n(wide->as<double>(), 7 * 33, 1.0);
  kernels::fill_zero(wide->slice_cols(1, 32));
  for (std::int64_t i = 0; i < 7 * 33; ++i)
    ASSERT_EQ(wide->as<double>()[i], i % 33 == 0 || i % 33 == 32 ? 1 : 0) << i;
}

TEST(Elementwise, ThreadsChangeNoBit) {
  expect_same_for_any_threads([] {
    const Operand a(DType::f32, 300, 130, 1), b(DType::f32, 300, 130, 2, 1),
        low(DType::bf16, 300, 130);
    kernels::add(a, b, a);
    kernels::copy(a, low);
    const Tensor at = positions(300, 100);
    kernels::dropout(low, 0.1f, {.sequence_length = 100, .positions = at}, ids({1, 2, 3}));
    return std::vector<Doubles>{a.values(), low.values()};
  });
}

}  // namespace
}  // namespace switchyard::test
