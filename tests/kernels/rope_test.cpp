#include "kernels/rope.hpp"

#include "kernel_test.hpp"

namespace switchyard::test {
namespace {

using kernels::RopeTable;
using kernels::Rotation;

TEST(Rope, TurnsPairsByPosition) {
  for (DType dtype : {DType::f32, DType::bf16})
    for (std::int64_t head_dim : {2, 10, 64, 130})
      for (std::int64_t gap : {0, 3}) {
        const RopeTable table(cpu(), 16, head_dim, 10000.0);
        const std::int64_t cols = 3 * head_dim;
        const Operand x(dtype, 6, cols, 1, gap);
        const Doubles wanted = reference::rope(x.values(), static_cast<std::size_t>(cols),
                                               static_cast<std::size_t>(head_dim), 3, 11, 10000.0);
        kernels::rope(x, table, head_dim, 3, 11, Rotation::forward);
        expect_close(x, wanted, tolerance_of(dtype));
      }
}

TEST(Rope, BackwardIsTheAdjoint) {
  const RopeTable table(cpu(), 8, 14, 500.0);
  const Operand x(DType::f32, 7, 28, 1), dy(DType::f32, 7, 28, 2);
  const Doubles x_before = x.values(), dy_before = dy.values();
  kernels::rope(x, table, 14, 7, 1, Rotation::forward);
  kernels::rope(dy, table, 14, 7, 1, Rotation::backward);
  EXPECT_NEAR(reference::dot(x.values(), dy_before), reference::dot(x_before, dy.values()), 1e-4);
  kernels::rope(x, table, 14, 7, 1, Rotation::backward);
  expect_close(x, x_before, 1e-6);
}

TEST(Rope, NoRowsAndMissingPositions) {
  const RopeTable table(cpu(), 4, 8, 10000.0);
  const Operand none(DType::f32, 0, 8), two(DType::f32, 2, 8);
  kernels::rope(none, table, 8, 4, 0, Rotation::forward);
  EXPECT_THROW(kernels::rope(two, table, 8, 4, 3, Rotation::forward), InternalError);
}

TEST(Rope, ThreadsChangeNoBit) {
  expect_same_for_any_threads([] {
    const RopeTable table(cpu(), 300, 64, 10000.0);
    const Operand x(DType::bf16, 600, 128, 1);
    kernels::rope(x, table, 64, 300, 0, Rotation::forward);
    return std::vector<Doubles>{x.values()};
  });
}

}  // namespace
}  // namespace switchyard::test
