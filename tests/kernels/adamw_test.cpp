#include "kernels/adamw.hpp"

#include <cmath>

#include "kernel_test.hpp"

namespace switchyard::test {
namespace {

TEST(AdamW, FollowsTheFormulaForSeveralSteps) {
  for (std::int64_t n : {1, 7, 65, 20000})
    for (float decay : {0.0f, 0.1f}) {
      const Operand value = vector_of(n, 1), gradient = vector_of(n, 2);
      Operand m = vector_of(n), v = vector_of(n);
      const auto size = static_cast<std::size_t>(n);
      m.set(Doubles(size, 0.0));
      v.set(Doubles(size, 0.0));
      Doubles wanted = value.values(), first(size), second(size);
      const Doubles before = gradient.values();
      for (int step = 1; step <= 3; ++step) {
        kernels::adamw(
            value, gradient, m, v,
            {.learning_rate = 0.01f, .weight_decay = decay, .gradient_scale = 0.5f, .step = step});
        for (std::size_t i = 0; i < size; ++i) {
          const double g = 0.5 * before[i];
          const double beta1 = 0.9f, beta2 = 0.95f;
          first[i] = beta1 * first[i] + (1 - beta1) * g;
          second[i] = beta2 * second[i] + (1 - beta2) * g * g;
          const double update = first[i] / (1 - std::pow(beta1, step)) /
                                (std::sqrt(second[i] / (1 - std::pow(beta2, step))) + 1e-8);
          wanted[i] -= 0.01 * (update + static_cast<double>(decay) * wanted[i]);
        }
        expect_close(value, wanted, 1e-6);
        expect_close(m, first, 1e-6);
        expect_close(v, second, 1e-6);
      }
      EXPECT_EQ(gradient.values(), before);
    }
}

TEST(AdamW, GradientZeroWithoutDecayMovesNothing) {
  const Operand value = vector_of(40, 1);
  Operand zero = vector_of(40), m = vector_of(40), v = vector_of(40);
  for (Operand* operand : {&zero, &m, &v}) operand->set(Doubles(40, 0.0));
  const Doubles before = value.values();
  kernels::adamw(value, zero, m, v, {.learning_rate = 1, .step = 1});
  EXPECT_EQ(value.values(), before);
}

TEST(SumOfSquares, AgreesWithALoop) {
  for (std::int64_t n : {0, 1, 7, 65, 4096, 4097, 20000}) {
    const Operand x = vector_of(n, 3);
    const double wanted = reference::dot(x.values(), x.values());
    EXPECT_NEAR(kernels::sum_of_squares(x), wanted, 1e-12 * (1 + wanted));
  }
  const Operand strided(DType::f32, 3, 5, 1, 2);
  EXPECT_NEAR(kernels::sum_of_squares(strided), reference::dot(strided.values(), strided.values()),
              1e-13);
}

TEST(AdamW, ThreadsChangeNoBit) {
  expect_same_for_any_threads([] {
    const Operand value = vector_of(50001, 1), gradient = vector_of(50001, 2),
                  m = vector_of(50001, 3);
    Operand v = vector_of(50001, 4);
    Doubles squares = v.values();
    for (double& square : squares) square *= square;
    v.set(squares);
    kernels::adamw(value, gradient, m, v, {.learning_rate = 0.1f, .step = 4});
    return std::vector<Doubles>{
        value.values(), m.values(), v.values(), {kernels::sum_of_squares(value)}};
  });
}

}  // namespace
}  // namespace switchyard::test
