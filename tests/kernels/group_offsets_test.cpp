#include "kernels/group_offsets.hpp"

#include <limits>

#include "kernel_test.hpp"

namespace switchyard::test {
namespace {

using Ints = std::vector<std::int32_t>;

TEST(GroupOffsets, AreTheSumsOfTheCountsBefore) {
  const Operand offsets = Operand::of_ints({-7, -7, -7, -7});
  kernels::group_offsets(Operand::of_ints({5, 0, 2}, 3), offsets);
  EXPECT_EQ(offsets.ints(), (Ints{0, 5, 5, 7}));
  kernels::group_offsets(Operand::of_ints({1, 2, 3, 10, 20, 30}, 3), offsets);
  EXPECT_EQ(offsets.ints(), (Ints{0, 11, 33, 66}));
}

TEST(GroupOffsets, OfNoGroupsIsZero) {
  const Operand offsets = Operand::of_ints({-7});
  const Tensor none(tested(), Purpose::workspace, DType::i32, {2, 0});
  kernels::group_offsets(none, offsets);
  EXPECT_EQ(offsets.ints(), (Ints{0}));
}

TEST(GroupOffsets, CountsThatAreNoneAreRefused) {
  const Operand offsets = Operand::of_ints({-7, -7, -7});
  EXPECT_THROW(kernels::group_offsets(Operand::of_ints({4, -1}, 2), offsets), InternalError);
  EXPECT_THROW(kernels::group_offsets(
                   Operand::of_ints({std::numeric_limits<std::int32_t>::max(), 1}, 2), offsets),
               InternalError);
  EXPECT_THROW(kernels::group_offsets(Operand::of_ints({4, 1, 1}, 3), offsets), InternalError);
}

}  // namespace
}  // namespace switchyard::test
