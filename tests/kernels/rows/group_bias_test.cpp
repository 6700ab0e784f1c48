#include "kernels/rows/group_bias.hpp"

#include <algorithm>

#include "kernels/kernel_test.hpp"

namespace switchyard::test {
namespace {

// Three groups, the first and the second of which may have no rows; the last rows belong to none.
TEST(GroupBias, EachRowGetsThatOfItsGroup) {
  for_each_case([](const Case& c) {
    const auto end = static_cast<std::int32_t>(c.rows - c.rows / 4);
    for (const std::vector<std::int32_t>& begins :
         {std::vector<std::int32_t>{0, end / 3, end / 2, end},
          {0, 0, 0, end},
          {0, end, end, end}}) {
      const Operand y(c.dtype, c.rows, c.cols, 1, c.gap), bias(c.dtype, 3, c.cols, 2, c.gap);
      Operand wanted(c.dtype, c.rows, c.cols);
      Doubles sums = y.values();
      for (std::int64_t r = 0; r < end; ++r) {
        const auto group =
            std::ranges::upper_bound(begins.begin(), begins.end() - 1, r) - begins.begin() - 1;
        for (std::int64_t i = 0; i < c.cols; ++i)
          sums[static_cast<std::size_t>(r * c.cols + i)] +=
              bias.values()[static_cast<std::size_t>(group * c.cols + i)];
      }
      wanted.set(sums);  // a sum of two is exact in double
      kernels::add_group_bias(bias, Operand::of_ints(begins), y);
      EXPECT_EQ(y.values(), wanted.values());
      EXPECT_TRUE(y.gaps_untouched());
    }
  });
}

TEST(GroupBias, OneGroupNeedsNoOffsets) {
  const Operand y(DType::f32, 2, 2), bias(DType::f32, 1, 2), two(DType::f32, 2, 2);
  y.set({1, 2, 3, 4});
  bias.set({10, 20});
  kernels::add_group_bias(bias, TensorView{}, y);
  EXPECT_EQ(y.values(), (Doubles{11, 22, 13, 24}));
  expect_refused([&] { kernels::add_group_bias(two, TensorView{}, y); });
}

}  // namespace
}  // namespace switchyard::test
