#include "kernels/rows/swiglu.hpp"

#include <cmath>
#include <limits>

#include "kernels/kernel_test.hpp"

namespace switchyard::test {
namespace {

TEST(Swiglu, ForwardIsTheFormula) {
  for_each_case([](const Case& c) {
    Operand gate_up(c.dtype, c.rows, 2 * c.cols, 1, c.gap);
    const Operand act(c.dtype, c.rows, c.cols, 2, c.gap);
    for (double range : {1.0, 40.0}) {
      gate_up.scale_by(range);
      kernels::swiglu_forward(gate_up, act);
      expect_close(act, reference::swiglu(gate_up.values(), static_cast<std::size_t>(c.cols)),
                   tolerance_of(c.dtype));
    }
  });
}

TEST(Swiglu, BackwardIsTheGradientAlsoInPlace) {
  for_each_case([](const Case& c) {
    const Operand gate_up(c.dtype, c.rows, 2 * c.cols, 1, c.gap);
    const Operand d_act(c.dtype, c.rows, c.cols, 2, c.gap), act(c.dtype, c.rows, c.cols, 3, c.gap);
    const Operand gradient(c.dtype, c.rows, 2 * c.cols, 4, c.gap);
    const auto width = static_cast<std::size_t>(c.cols);
    const Doubles wanted_act = reference::swiglu(gate_up.values(), width);
    const Doubles wanted = reference::numerical_gradient(
        [&](const Doubles& at) {
          return reference::dot(reference::swiglu(at, width), d_act.values());
        },
        gate_up.values());
    kernels::swiglu_backward(d_act, gate_up, gradient, act);
    expect_close(gradient, wanted, tolerance_of(c.dtype));
    expect_close(act, wanted_act, tolerance_of(c.dtype));
    kernels::swiglu_backward(d_act, gate_up, gate_up, act);
    EXPECT_EQ(gate_up.values(), gradient.values());
    EXPECT_TRUE(gate_up.gaps_untouched());
  });
}

TEST(Swiglu, ExtremeGatesSaturateAndNanStays) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (std::int64_t lanes : {1, 32}) {  // a single lane, a whole vector
    Operand gate_up(DType::f32, 4, 2 * lanes);
    const Operand act(DType::f32, 4, lanes);
    Doubles values;
    for (double gate : {-1e30, 1e30, nan, -200.0})
      for (std::int64_t i = 0; i < 2 * lanes; ++i) values.push_back(i < lanes ? gate : 2.0);
    gate_up.set(values);
    kernels::swiglu_forward(gate_up, act);
    const Doubles result = act.values();
    const auto at = [&](std::size_t row) { return result[row * static_cast<std::size_t>(lanes)]; };
    EXPECT_NEAR(at(0), 0, 1e-6);
    EXPECT_FLOAT_EQ(static_cast<float>(at(1)), 2e30f);
    EXPECT_TRUE(std::isnan(at(2)));
    EXPECT_NEAR(at(3), 0, 1e-30);
  }
}

TEST(Sigmoid, IsTheFormulaAndItsSlopeAlsoInPlace) {
  for (const std::int64_t n : {1, 3, 16, 130}) {
    Operand logits = vector_of(n, 1);
    logits.scale_by(10);
    const Operand gate = vector_of(n, 2), dgate = vector_of(n, 3), dlogits = vector_of(n, 4);
    Doubles wanted, wanted_slopes;
    for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) {
      const double value = 1 / (1 + std::exp(-logits.values()[i]));
      wanted.push_back(value);
      wanted_slopes.push_back(dgate.values()[i] * value * (1 - value));
    }
    kernels::sigmoid_forward(logits, gate);
    expect_close(gate, wanted, tolerance_of(DType::f32));
    kernels::sigmoid_backward(dgate, gate, dlogits);
    expect_close(dlogits, wanted_slopes, tolerance_of(DType::f32));
    kernels::sigmoid_backward(dgate, gate, dgate);
    EXPECT_EQ(dgate.values(), dlogits.values());
    kernels::sigmoid_forward(logits, logits);
    EXPECT_EQ(logits.values(), gate.values());
  }
}

TEST(Swiglu, ThreadsChangeNoBit) {
  expect_same_for_any_threads([] {
    const Operand gate_up(DType::bf16, 300, 260, 1), d_act(DType::bf16, 300, 130, 2);
    const Operand act(DType::bf16, 300, 130), gradient(DType::bf16, 300, 260);
    kernels::swiglu_backward(d_act, gate_up, gradient, act);
    return std::vector<Doubles>{act.values(), gradient.values()};
  });
}

}  // namespace
}  // namespace switchyard::test
