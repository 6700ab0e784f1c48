#include "kernels/rope.hpp"

#include "kernel_test.hpp"

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
        const RopeTable table(cpu(), 16, head_dim, {});
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
  const RopeTable table(cpu(), last + 1, 64, {});
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
  const RopeTable table(cpu(), 8, 14, {.base = 500});
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
  const RopeTable table(cpu(), 4, 8, {});
  const Operand none(DType::f32, 0, 8), two(DType::f32, 2, 8);
  kernels::rope(none, table, Operand::of_ints({}), 8, Rotation::forward);
  EXPECT_THROW(kernels::rope(two, table, positions_of(2, 2, 3), 8, Rotation::forward),
               InternalError);
}

TEST(Rope, ThreadsChangeNoBit) {
  expect_same_for_any_threads([] {
    const RopeTable table(cpu(), 300, 64, {});
    const Operand x(DType::bf16, 600, 128, 1);
    kernels::rope(x, table, positions_of(600, 300, 0), 64, Rotation::forward);
    return std::vector<Doubles>{x.values()};
  });
}

}  // namespace
}  // namespace switchyard::test
