#include "kernels/rows/rope.hpp"

#include <cmath>

#include "kernels/kernel_test.hpp"

namespace switchyard::test {
namespace {

using kernels::RopeTable;
using kernels::Rotation;

// Positions of `rows` rows: first + t % length.
Operand positions_of(std::int64_t rows, std::int64_t length, std::int64_t first) {
  std::vector<std::int32_t> positions;
  for (std::int64_t t = 0; t < rows; ++t)
    positions.push_back(static_cast<std::int32_t>(first + t % length));
  return Operand::of_ints(positions);
}

TEST(Rope, TurnsPairsByPosition) {
  for (DType dtype : {DType::f32, DType::bf16})
    for (std::int64_t head_dim : {2, 10, 64, 130})
      for (std::int64_t gap : {0, 3}) {
        const RopeTable table(tested(), 16, head_dim, {});
        const std::int64_t cols = 3 * head_dim;
        const Operand x(dtype, 6, cols, 1, gap);
        const Doubles wanted = reference::rope(x.values(), static_cast<std::size_t>(cols),
                                               static_cast<std::size_t>(head_dim), 3, 11, 10000.0);
        kernels::rope(x, table, positions_of(6, 3, 11), head_dim, Rotation::forward);
        expect_close(x, wanted, tolerance_of(dtype));
      }
}

TEST(Rope, FarPositionsInAnyOrder) {
  const std::int64_t last = (std::int64_t{1} << 20) - 1;
  const RopeTable table(tested(), last + 1, 64, {});
  EXPECT_LT(table.coarse->num_bytes() + table.fine->num_bytes(), 2 << 20);
  for (std::int64_t first : {std::int64_t{0}, std::int64_t{255}, std::int64_t{70001}, last - 2}) {
    const Operand x(DType::f32, 6, 128, 1);
    const Doubles wanted =
        reference::rope(x.values(), 128, 64, 3, static_cast<std::size_t>(first), 10000.0);
    kernels::rope(x, table, positions_of(6, 3, first), 64, Rotation::forward);
    expect_close(x, wanted, tolerance_of(DType::f32));
  }
}

TEST(Rope, BackwardIsTheAdjoint) {
  const RopeTable table(tested(), 8, 14, {.base = 500});
  const Operand positions = positions_of(7, 7, 1);
  const Operand x(DType::f32, 7, 28, 1), dy(DType::f32, 7, 28, 2);
  const Doubles x_before = x.values(), dy_before = dy.values();
  kernels::rope(x, table, positions, 14, Rotation::forward);
  kernels::rope(dy, table, positions, 14, Rotation::backward);
  EXPECT_NEAR(reference::dot(x.values(), dy_before), reference::dot(x_before, dy.values()), 1e-4);
  kernels::rope(x, table, positions, 14, Rotation::backward);
  expect_close(x, x_before, 1e-6);
}

TEST(Rope, NoRowsAndMissingPositions) {
  const RopeTable table(tested(), 4, 8, {});
  const Operand none(DType::f32, 0, 8), two(DType::f32, 2, 8);
  kernels::rope(none, table, Operand::of_ints({}), 8, Rotation::forward);
  expect_refused([&] { kernels::rope(two, table, positions_of(2, 2, 3), 8, Rotation::forward); });
}

// The formulas of the papers as Hugging Face's rope utilities state them, in their terms.
TEST(RopeScaling, FrequenciesOfEveryKind) {
  constexpr std::int64_t dim = 64;
  const double base = 10000, factor = 8, length = 4096, pi = 3.14159265358979323846;
  const auto plain = [&](double b, double i) { return 1 / std::pow(b, 2 * i / dim); };
  const auto expect = [&](const kernels::RopeSpec& spec, auto&& formula) {
    const std::vector<double> frequencies = kernels::rope_frequencies(spec, dim);
    ASSERT_EQ(frequencies.size(), 32u);
    for (std::size_t i = 0; i < 32; ++i) {
      const double expected = formula(static_cast<double>(i));
      EXPECT_NEAR(frequencies[i], expected, 1e-14 * expected) << i;
    }
  };
  using kernels::RopeScaling;
  kernels::RopeSpec spec{.base = base, .scaling = RopeScaling::none, .factor = factor};
  expect(spec, [&](double i) { return plain(base, i); });
  spec.scaling = RopeScaling::linear;
  expect(spec, [&](double i) { return plain(base, i) / factor; });
  spec.scaling = RopeScaling::ntk;
  expect(spec, [&](double i) { return plain(base * std::pow(factor, 64.0 / 62.0), i); });
  EXPECT_EQ(kernels::rope_magnitude(spec), 1);
  spec.scaling = RopeScaling::yarn;
  spec.original_length = 4096;
  const auto correction_dim = [&](double rotations) {
    return dim * std::log(length / (rotations * 2 * pi)) / (2 * std::log(base));
  };
  const double low = std::floor(correction_dim(32)), high = std::ceil(correction_dim(1));
  EXPECT_GT(low, 0);
  EXPECT_LT(high, 32);
  expect(spec, [&](double i) {
    const double ramp = std::min(1.0, std::max(0.0, (i - low) / (high - low)));
    return plain(base, i) / factor * ramp + plain(base, i) * (1 - ramp);
  });
  EXPECT_NEAR(kernels::rope_magnitude(spec), 0.1 * std::log(8.0) + 1, 1e-15);
}

TEST(RopeScaling, MagnitudeScalesWhatIsTurned) {
  const kernels::RopeSpec spec{
      .scaling = kernels::RopeScaling::yarn, .factor = 4, .original_length = 100};
  const RopeTable table(tested(), 600, 16, spec);
  const std::vector<double> frequencies = kernels::rope_frequencies(spec, 16);
  const Operand x(DType::f32, 1, 16, 1);
  const Doubles before = x.values();
  kernels::rope(x, table, positions_of(1, 1, 555), 16, Rotation::forward);
  Doubles wanted(16);
  for (std::size_t i = 0; i < 8; ++i) {
    const double magnitude = kernels::rope_magnitude(spec), angle = 555 * frequencies[i];
    wanted[i] = magnitude * (before[i] * std::cos(angle) - before[i + 8] * std::sin(angle));
    wanted[i + 8] = magnitude * (before[i + 8] * std::cos(angle) + before[i] * std::sin(angle));
  }
  expect_close(x, wanted, tolerance_of(DType::f32));
}

TEST(Rope, ThreadsChangeNoBit) {
  expect_same_for_any_threads([] {
    const RopeTable table(tested(), 300, 64, {});
    const Operand x(DType::bf16, 600, 128, 1);
    kernels::rope(x, table, positions_of(600, 300, 0), 64, Rotation::forward);
    return std::vector<Doubles>{x.values()};
  });
}

}  // namespace
}  // namespace switchyard::test
