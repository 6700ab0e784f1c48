#include "kernels/sums/adamw.hpp"

#include <cmath>
#include <limits>

#include "kernels/kernel_test.hpp"

namespace switchyard::test {
namespace {

// {factor of the gradients, go}
Operand decision_of(double scale, double go = 1) {
  Operand decision = vector_of(2);
  decision.set({scale, go});
  return decision;
}

// Zeros.
Operand moment_of(std::int64_t n) {
  Operand moment = vector_of(n);
  moment.set(Doubles(static_cast<std::size_t>(n), 0.0));
  return moment;
}

void update(const kernels::AdamWTensor& tensor, const kernels::AdamWScalars& scalars,
            const Operand& decision) {
  kernels::adamw({&tensor, 1}, scalars, decision);
}

TEST(AdamW, FollowsTheFormulaForSeveralSteps) {
  for (std::int64_t n : {1, 7, 65, 20000})
    for (float decay : {0.0f, 0.1f}) {
      const Operand value = vector_of(n, 1), gradient = vector_of(n, 2);
      const Operand m = moment_of(n), v = moment_of(n);
      const auto size = static_cast<std::size_t>(n);
      Doubles wanted = value.values(), first(size), second(size);
      const Doubles before = gradient.values();
      for (int step = 1; step <= 3; ++step) {
        update({value, gradient, m, v, decay}, {.learning_rate = 0.01f, .step = step},
               decision_of(0.5));
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
  const Operand value = vector_of(40, 1), zero = moment_of(40), m = moment_of(40),
                v = moment_of(40);
  const Doubles before = value.values();
  update({value, zero, m, v}, {.learning_rate = 1, .step = 1}, decision_of(1));
  EXPECT_EQ(value.values(), before);
}

TEST(AdamW, ManyTensorsAtOnceAreEachUpdatedAsAlone) {
  std::vector<std::int64_t> sizes = {70, 0, 1, 5000, 20000};
  for (std::int64_t i = 0; i < 150; ++i) sizes.push_back(1 + i % 9);  // more than go in one launch
  const auto results = [&](bool at_once) {
    std::vector<Operand> operands;  // four of each tensor
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      const auto seed = static_cast<unsigned>(i);
      operands.push_back(vector_of(sizes[i], 10 * seed));
      operands.push_back(vector_of(sizes[i], 10 * seed + 1));
      operands.push_back(moment_of(sizes[i]));
      operands.push_back(moment_of(sizes[i]));
    }
    std::vector<kernels::AdamWTensor> tensors;
    for (std::size_t i = 0; i < operands.size(); i += 4)
      tensors.push_back(
          {operands[i], operands[i + 1], operands[i + 2], operands[i + 3], i == 0 ? 0.5f : 0.0f});
    const kernels::AdamWScalars scalars{.learning_rate = 0.1f, .step = 2};
    if (at_once) kernels::adamw(tensors, scalars, decision_of(0.25));
    for (const kernels::AdamWTensor& tensor : tensors)
      if (!at_once) update(tensor, scalars, decision_of(0.25));
    std::vector<Doubles> values;
    for (const Operand& operand : operands) values.push_back(operand.values());
    return values;
  };
  EXPECT_EQ(results(true), results(false));
}

// Parts of a buffer, wherever they begin and end; what lies beside them is left alone.
TEST(AdamW, PartsOfBuffersAtAnyAddress) {
  constexpr std::int64_t size = 9000;
  for (const auto& [begin, end] : std::vector<std::pair<std::int64_t, std::int64_t>>{
           {0, 8999}, {1, 9000}, {4, 8196}, {3, 5}}) {
    const Operand value = vector_of(size, 1), gradient = vector_of(size, 2);
    const Operand m = moment_of(size), v = moment_of(size);
    Doubles wanted = value.values();
    const Doubles g = gradient.values();
    update({value.view().slice_rows(begin, end), gradient.view().slice_rows(begin, end),
            m.view().slice_rows(begin, end), v.view().slice_rows(begin, end)},
           {.learning_rate = 0.5f, .step = 1}, decision_of(1));
    for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i)
      wanted[i] -= 0.5 * g[i] / (std::abs(g[i]) + 1e-8);  // of the first step
    expect_close(value, wanted, 1e-6);
  }
}

TEST(AdamW, WithoutAGoNothingChangesWhateverTheGradient) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const Operand value = vector_of(70, 1), m = vector_of(70, 2), v = vector_of(70, 3),
                gradient = vector_of(70, 4);
  gradient.set(Doubles(70, nan));
  const std::vector<Doubles> before = {value.values(), m.values(), v.values()};
  update({value, gradient, m, v, 0.1f}, {.learning_rate = 1}, decision_of(nan, 0));
  EXPECT_EQ((std::vector<Doubles>{value.values(), m.values(), v.values()}), before);
  gradient.set(Doubles(70, 1.0));
  update({value, gradient, m, v, 0.1f}, {.learning_rate = 1}, decision_of(1, 1));
  EXPECT_NE(value.values(), before[0]);
}

TEST(AdamW, ThreadsChangeNoBit) {
  expect_same_for_any_threads([] {
    const Operand value = vector_of(50001, 1), gradient = vector_of(50001, 2),
                  m = vector_of(50001, 3);
    Operand v = vector_of(50001, 4);
    Doubles squares = v.values();
    for (double& square : squares) square *= square;
    v.set(squares);
    update({value, gradient, m, v}, {.learning_rate = 0.1f, .step = 4}, decision_of(1));
    return std::vector<Doubles>{value.values(), m.values(), v.values()};
  });
}

}  // namespace
}  // namespace switchyard::test
