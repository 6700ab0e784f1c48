// Sums and small numbers of a step that stay on the device.
#include "kernels/sums/sums.hpp"

#include <cmath>
#include <limits>
#include <numeric>

#include "kernels/kernel_test.hpp"
#include "kernels/rows/embedding.hpp"
#include "kernels/sums/step_figures.hpp"
#include "tests/support/tested_device.hpp"

namespace switchyard::test {
namespace {

Tensor figures_of(const Doubles& values, std::int64_t cols = 1) {
  Tensor figures(tested(), Purpose::workspace, DType::f64,
                 {static_cast<std::int64_t>(values.size()) / cols, cols});
  std::ranges::copy(values, figures->span<double>().begin());
  return figures;
}

Doubles values_of(const Tensor& figures) {
  const std::span<const double> values = figures->span<double>();
  return {values.begin(), values.end()};
}

double sum_of(const Operand& x) {
  const Doubles values = x.values();
  return std::accumulate(values.begin(), values.end(), 0.0);
}

TEST(Sums, OfValuesAreExactInDoubleAndAdded) {
  for (const std::int64_t n : {0, 1, 7, 4096, 4097, 20000}) {
    const Operand x = vector_of(n, 3);
    const Tensor into = figures_of({0.5, 3});
    kernels::add_sum(x, 4, into->slice_rows(0, 1));
    // 23-bit numbers below 2: every partial sum in double is exact.
    EXPECT_EQ(values_of(into), (Doubles{0.5 + sum_of(x) / 4, 3}));
  }
  const Operand strided(DType::f32, 3, 5, 1, 2);
  const Tensor into = figures_of({0});
  kernels::add_sum(strided, 1, into);
  EXPECT_EQ(values_of(into), Doubles{sum_of(strided)});
}

TEST(Sums, OfSquaresAreThoseOfAllTensors) {
  for (const std::int64_t n : {0, 1, 7, 65, 4096, 4097, 20000}) {
    const Operand x = vector_of(n, 3), strided(DType::f32, 3, 5, 1, 2);
    const double wanted =
        reference::dot(x.values(), x.values()) + reference::dot(strided.values(), strided.values());
    const std::vector<TensorView> tensors = {x, strided, vector_of(0)};
    const Tensor into = figures_of({0.5});
    kernels::add_sum_of_squares(tensors, into);
    EXPECT_NEAR(values_of(into)[0], 0.5 + wanted, 1e-12 * (1 + wanted));
  }
}

// More tensors than go in one launch of a card, more elements than one of its blocks adds, and
// parts that begin anywhere. Values of few bits, so that every order gives the same sum.
TEST(Sums, OfManyTensorsAndElements) {
  const Operand all = vector_of(150001, 1);
  Doubles values(150001);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<double>(i % 13) - 6;
  all.set(values);
  std::vector<TensorView> tensors = {all};
  for (std::int64_t i = 0; i < 150; ++i) tensors.push_back(all.view().slice_rows(i, 3 * i));
  const Operand strided(DType::f32, 200, 300, 1, 1);
  strided.set(Doubles(200 * 300, 3.0));
  tensors.push_back(strided);
  double squares = 200 * 300 * 9;
  for (const double value : values) squares += value * value;
  for (std::size_t i = 0; i < 150; ++i)
    for (std::size_t j = i; j < 3 * i; ++j) squares += values[j] * values[j];
  const Tensor into = figures_of({0, 1});
  kernels::add_sum_of_squares(tensors, into->slice_rows(0, 1));
  kernels::add_sum(all.view().slice_rows(1, 150001), 2, into->slice_rows(1, 2));
  const double sum = std::accumulate(values.begin() + 1, values.end(), 0.0);
  EXPECT_EQ(values_of(into), (Doubles{squares, 1 + sum / 2}));
}

TEST(Sums, ThreadsChangeNoBit) {
  expect_same_for_any_threads([] {
    const Operand x = vector_of(50001, 1);
    const TensorView view = x;
    const Tensor into = figures_of({0, 0});
    kernels::add_sum(x, 3, into->slice_rows(0, 1));
    kernels::add_sum_of_squares({&view, 1}, into->slice_rows(1, 2));
    return std::vector<Doubles>{values_of(into)};
  });
}

TEST(Sums, QuotientsAreAdded) {
  const Tensor into = figures_of({1, 2});
  kernels::add_quotients(figures_of({3, 1}), 4, into);
  EXPECT_EQ(values_of(into), (Doubles{1.75, 2.25}));
}

// What kernels take beyond their operands: a plan for their device counts the same, and one for a
// card counts what a card takes wherever it is made.
TEST(Scratch, IsInThePlan) {
  const auto scratch_of = [](Device& device) {
    const Tensor table(device, Purpose::parameter, DType::f32, {50000, 8});
    const Tensor rows(device, Purpose::activation, DType::f32, {3000, 8});
    const Tensor tokens(device, Purpose::activation, DType::i32, {3000});
    const Tensor sum(device, Purpose::workspace, DType::f64, {1});
    const std::int64_t before = device.memory().live_total();
    kernels::embedding_backward(tokens, rows, table);
    const std::int64_t of_embedding = device.memory().live_total() - before;
    kernels::add_sum_of_squares(std::vector<TensorView>(20000, table->slice_rows(0, 1)), sum);
    return std::vector<std::int64_t>{of_embedding, device.memory().live_total() - before};
  };
  const auto here = make_tested_device();
  const auto plan = make_plan_device({.device = here->target().device});
  EXPECT_EQ(scratch_of(*plan), scratch_of(*here));
  const auto plan_for_card = make_plan_device({.device = DeviceKind::cuda});
  const std::vector<std::int64_t> of_card = scratch_of(*plan_for_card);
  EXPECT_GE(of_card[0], 4 * 3000 * 4);  // keys and places, twice
  EXPECT_EQ(of_card[1], 20000 * 8);     // a sum of each
}

TEST(StepFigures, OfTheHostAreWritten) {
  const Tensor to = figures_of({1, 2, 3, 4});
  kernels::write_figures(Doubles{7, 8}, to->slice_rows(1, 3));
  EXPECT_EQ(values_of(to), (Doubles{1, 7, 8, 4}));
}

TEST(StepFigures, AreAddedInTheOrderOfRanksAndTheLargestIsTaken) {
  const Tensor combined = figures_of({9, 9, 9}), of_one = figures_of({9, 9, 9});
  const Tensor ranks = figures_of({1e16, 1, -5, 1, 2, -7, -1e16, 3, -6}, 3);
  kernels::combine_figures(ranks, 2, combined);
  EXPECT_EQ(values_of(combined), (Doubles{(1e16 + 1) - 1e16, 6, -5}));
  kernels::combine_figures(ranks->slice_rows(1, 2), 2, of_one);
  EXPECT_EQ(values_of(of_one), (Doubles{1, 2, -7}));
}

struct Decided {
  Doubles outcome, decision;
};

// figures: three losses, three parts of the norm's square, overflowed sums.
Decided decide(const Doubles& figures, double clip_norm, const kernels::UpdateRule& rest = {}) {
  const Tensor outcome = figures_of({9, 9});
  const Operand decision = vector_of(2);
  kernels::UpdateRule rule = rest;
  rule.balance_weight = 0.5;
  rule.z_weight = 0.25;
  rule.clip_norm = clip_norm;
  kernels::decide_update(figures_of(figures), rule, outcome, decision);
  return {values_of(outcome), decision.values()};
}

TEST(StepFigures, SayHowGradientsAreClippedAndWhetherToGo) {
  const Decided clipped = decide({4, 2, 8, 9, 0, 0, 0}, 1);
  EXPECT_EQ(clipped.outcome, (Doubles{7, 3}));
  EXPECT_EQ(clipped.decision, (Doubles{static_cast<double>(static_cast<float>(1.0 / 3)), 1}));
  EXPECT_EQ(decide({4, 2, 8, 9, 0, 0, 0}, 3).decision, (Doubles{1, 1}));
  EXPECT_EQ(decide({4, 2, 8, 9, 0, 0, 0}, 0).decision, (Doubles{1, 1}));
  const double inf = std::numeric_limits<double>::infinity();
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const double bad : {inf, -inf, nan})
    for (std::size_t which = 0; which < 6; ++which) {
      Doubles figures = {4, 2, 8, 9, 0, 0, 0};
      figures[which] = bad;
      EXPECT_EQ(decide(figures, 1).decision[1], 0) << bad << " at " << which;
    }
}

TEST(StepFigures, OfExactSumsAreDividedAddedUpAndRefusedIfTheyOverflowed) {
  kernels::UpdateRule exact;
  exact.loss_scale = {0.5, 0.25, 0.125};
  exact.most_square = 16;
  const Decided decided = decide({8, 8, 64, 8, 0.75, 0.25, 0}, 0, exact);
  EXPECT_EQ(decided.outcome, (Doubles{4 + 0.5 * 2 + 0.25 * 8, 3}));
  EXPECT_EQ(decided.decision, (Doubles{1, 1}));
  EXPECT_EQ(decide({8, 8, 64, 8, 0.75, 0.25, 1}, 0, exact).decision[1], 0);
  EXPECT_EQ(decide({8, 8, 64, 17, 0, 0, 0}, 0, exact).decision[1], 0);
}

}  // namespace
}  // namespace switchyard::test
