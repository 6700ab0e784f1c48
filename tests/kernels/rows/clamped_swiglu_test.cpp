#include "kernels/rows/clamped_swiglu.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/kernel_test.hpp"

namespace switchyard::test {
namespace {

// Between two numbers of bf16, so that no value lies at the kink.
constexpr kernels::SwigluClamp clamp{.alpha = 1.7f, .limit = 1.003f};

// The formula, of [rows, 2 width].
Doubles act_of(const Doubles& gate_up, std::size_t width) {
  const auto alpha = static_cast<double>(clamp.alpha), limit = static_cast<double>(clamp.limit);
  Doubles act;
  for (std::size_t i = 0; i < gate_up.size() / 2; ++i) {
    const std::size_t at = i / width * 2 * width + i % width;
    const double gate = std::min(gate_up[at], limit);
    const double up = std::clamp(gate_up[at + width], -limit, limit);
    act.push_back((up + 1) * gate / (1 + std::exp(-alpha * gate)));
  }
  return act;
}

TEST(ClampedSwiglu, ForwardIsTheFormula) {
  for_each_case([](const Case& c) {
    Operand gate_up(c.dtype, c.rows, 2 * c.cols, 1, c.gap);
    const Operand act(c.dtype, c.rows, c.cols, 2, c.gap);
    for (const double range : {1.0, 40.0}) {
      gate_up.scale_by(range);
      kernels::clamped_swiglu_forward(gate_up, clamp, act);
      expect_close(act, act_of(gate_up.values(), static_cast<std::size_t>(c.cols)),
                   tolerance_of(c.dtype));
    }
  });
}

TEST(ClampedSwiglu, BackwardIsTheGradientAlsoInPlace) {
  for_each_case([](const Case& c) {
    const Operand gate_up(c.dtype, c.rows, 2 * c.cols, 1, c.gap);
    const Operand d_act(c.dtype, c.rows, c.cols, 2, c.gap), act(c.dtype, c.rows, c.cols, 3, c.gap);
    const Operand gradient(c.dtype, c.rows, 2 * c.cols, 4, c.gap);
    const auto width = static_cast<std::size_t>(c.cols);
    const Doubles wanted_act = act_of(gate_up.values(), width);
    const Doubles wanted = reference::numerical_gradient(
        [&](const Doubles& at) { return reference::dot(act_of(at, width), d_act.values()); },
        gate_up.values());
    kernels::clamped_swiglu_backward(d_act, gate_up, clamp, gradient, act);
    expect_close(gradient, wanted, tolerance_of(c.dtype));
    expect_close(act, wanted_act, tolerance_of(c.dtype));
    kernels::clamped_swiglu_backward(d_act, gate_up, clamp, gate_up, act);
    EXPECT_EQ(gate_up.values(), gradient.values());
    EXPECT_TRUE(gate_up.gaps_untouched());
  });
}

TEST(ClampedSwiglu, NanStays) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const Operand gate_up(DType::f32, 2, 2), act(DType::f32, 2, 1);
  gate_up.set({nan, 1, 1, nan});
  kernels::clamped_swiglu_forward(gate_up, clamp, act);
  EXPECT_TRUE(std::isnan(act.values()[0]) && std::isnan(act.values()[1]));
}

}  // namespace
}  // namespace switchyard::test
