#include "kernels/routing/group_offsets.hpp"

#include <limits>

#include "kernels/kernel_test.hpp"

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

TEST(GroupOffsets, ManyGroups) {
  const std::int64_t groups = 700;
  Ints counts(static_cast<std::size_t>(3 * groups)), wanted(static_cast<std::size_t>(groups + 1));
  for (std::size_t i = 0; i < counts.size(); ++i)
    counts[i] = static_cast<std::int32_t>(i * 7919 % 1000);
  for (std::size_t g = 0; g < 700; ++g)
    wanted[g + 1] = wanted[g] + counts[g] + counts[g + 700] + counts[g + 1400];
  const Operand offsets = Operand::of_ints(Ints(wanted.size(), -7));
  kernels::group_offsets(Operand::of_ints(counts, groups), offsets);
  EXPECT_EQ(offsets.ints(), wanted);
}

TEST(GroupOffsets, CountsThatAreNoneAreRefused) {
  const Operand offsets = Operand::of_ints({-7, -7, -7});
  expect_refused([&] { kernels::group_offsets(Operand::of_ints({4, -1}, 2), offsets); });
  expect_refused([&] {
    kernels::group_offsets(Operand::of_ints({std::numeric_limits<std::int32_t>::max(), 1}, 2),
                           offsets);
  });
  expect_refused([&] { kernels::group_offsets(Operand::of_ints({4, 1, 1}, 3), offsets); });
}

}  // namespace
}  // namespace switchyard::test
