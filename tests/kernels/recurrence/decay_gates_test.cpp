#include "kernels/recurrence/decay_gates.hpp"

#include <cmath>

#include "kernels/kernel_test.hpp"

namespace switchyard::test {
namespace {

double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}

// Steps, then gates.
Doubles decay_gates(const Doubles& logits, const Doubles& rate, const Doubles& bias) {
  Doubles steps, gates;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const std::size_t h = i % rate.size();
    steps.push_back(std::log1p(std::exp(logits[i] + bias[h])));
    gates.push_back(-std::exp(rate[h]) * steps.back());
  }
  steps.insert(steps.end(), gates.begin(), gates.end());
  return steps;
}

TEST(DecayGates, ForwardAndEveryGradient) {
  for_each_case([](const Case& c) {
    if (c.rows == 0) return;
    const Operand logits(c.dtype, c.rows, c.cols, 1, c.gap),
        dlogits(c.dtype, c.rows, c.cols, 2, c.gap);
    const Operand rate = vector_of(c.cols, 3), bias = vector_of(c.cols, 4);
    const Operand steps(DType::f32, c.rows, c.cols, 5), gates(DType::f32, c.rows, c.cols, 6);
    const auto flat = [](const Operand& x) { return x.view().flat(); };
    kernels::decay_gates_forward(logits, flat(rate), flat(bias), steps, gates);
    const Doubles both = decay_gates(logits.values(), rate.values(), bias.values());
    const auto half = both.begin() + static_cast<std::ptrdiff_t>(both.size() / 2);
    expect_close(steps, Doubles(both.begin(), half), 4e-6);
    expect_close(gates, Doubles(half, both.end()), 4e-6);

    const Operand dsteps(DType::f32, c.rows, c.cols, 7), dgates(DType::f32, c.rows, c.cols, 8);
    const Operand drate = vector_of(c.cols, 9), dbias = vector_of(c.cols, 10);
    const Doubles drate_before = drate.values(), dbias_before = dbias.values();
    kernels::decay_gates_backward(dgates, dsteps, logits, flat(rate), flat(bias), dlogits,
                                  flat(drate), flat(dbias));
    Doubles weights = dsteps.values();
    const Doubles of_gates = dgates.values();
    weights.insert(weights.end(), of_gates.begin(), of_gates.end());
    const auto loss = [&](const Doubles& x, const Doubles& r, const Doubles& b) {
      return reference::dot(decay_gates(x, r, b), weights);
    };
    const Doubles x = logits.values(), r = rate.values(), b = bias.values();
    expect_close(
        dlogits,
        reference::numerical_gradient([&](const Doubles& at) { return loss(at, r, b); }, x),
        4 * tolerance_of(c.dtype));
    Doubles wanted =
        reference::numerical_gradient([&](const Doubles& at) { return loss(x, at, b); }, r);
    for (std::size_t i = 0; i < wanted.size(); ++i) wanted[i] += drate_before[i];
    expect_close(drate, wanted, 1e-5);
    wanted = reference::numerical_gradient([&](const Doubles& at) { return loss(x, r, at); }, b);
    for (std::size_t i = 0; i < wanted.size(); ++i) wanted[i] += dbias_before[i];
    expect_close(dbias, wanted, 1e-5);
  });
}

TEST(BetaGates, ForwardAndGradient) {
  for_each_case([](const Case& c) {
    for (const float most : {1.0f, 2.0f}) {
      const Operand logits(c.dtype, c.rows, c.cols, 1, c.gap);
      const Operand dlogits(c.dtype, c.rows, c.cols, 2, c.gap);
      const Operand betas(DType::f32, c.rows, c.cols, 3), dbetas(DType::f32, c.rows, c.cols, 4);
      kernels::beta_gates_forward(logits, most, betas);
      Doubles wanted, slopes;
      const Doubles x = logits.values(), d = dbetas.values();
      for (std::size_t i = 0; i < x.size(); ++i) {
        const double s = sigmoid(x[i]);
        wanted.push_back(static_cast<double>(most) * s);
        slopes.push_back(d[i] * static_cast<double>(most) * s * (1 - s));
      }
      expect_close(betas, wanted, 4e-6);
      kernels::beta_gates_backward(dbetas, betas, most, dlogits);
      expect_close(dlogits, slopes, tolerance_of(c.dtype));
    }
  });
}

}  // namespace
}  // namespace switchyard::test
