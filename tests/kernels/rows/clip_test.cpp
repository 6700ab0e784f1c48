#include "kernels/rows/clip.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/kernel_test.hpp"
#include "tests/support/tested_device.hpp"

namespace switchyard::test {
namespace {

constexpr double limit = 0.75;  // of both types

TEST(Clip, HoldsWithinAndStopsTheGradientBeyond) {
  for_each_case([](const Case& c) {
    const Operand x(c.dtype, c.rows, c.cols, 1, c.gap), dx(c.dtype, c.rows, c.cols, 2, c.gap);
    const Operand again(c.dtype, c.rows, c.cols, 1, c.gap);
    const Tensor inside(tested(), Purpose::workspace, DType::u8, {c.rows, c.cols});
    Doubles wanted = x.values(), wanted_gradient = dx.values();
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      if (std::abs(wanted[i]) > limit) wanted_gradient[i] = 0;
      wanted[i] = std::clamp(wanted[i], -limit, limit);
    }
    kernels::clip_forward(x, static_cast<float>(limit), inside);
    EXPECT_EQ(x.values(), wanted);
    kernels::clip_backward(dx, inside);
    EXPECT_EQ(dx.values(), wanted_gradient);
    kernels::clip_forward(again, static_cast<float>(limit), TensorView{});
    EXPECT_EQ(again.values(), wanted);
    EXPECT_TRUE(x.gaps_untouched() && dx.gaps_untouched());
  });
}

TEST(Clip, NanStaysAndHasItsGradient) {
  const Operand x(DType::f32, 1, 2), dx(DType::f32, 1, 2);
  const Tensor inside(tested(), Purpose::workspace, DType::u8, {1, 2});
  x.set({std::numeric_limits<double>::quiet_NaN(), -std::numeric_limits<double>::infinity()});
  dx.set({3, 3});
  kernels::clip_forward(x, 1.0f, inside);
  EXPECT_TRUE(std::isnan(x.values()[0]));
  EXPECT_EQ(x.values()[1], -1);
  kernels::clip_backward(dx, inside);
  EXPECT_EQ(dx.values(), (Doubles{3, 0}));
}

}  // namespace
}  // namespace switchyard::test
