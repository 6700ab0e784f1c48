#include "kernels/routing/balance.hpp"

#include <limits>

#include "kernels/kernel_test.hpp"

namespace switchyard::test {
namespace {

struct Statistics {
  std::int64_t num_experts, top_k, sequence_length;
  std::vector<std::int32_t> counts;  // [S, E]
  Doubles score_sums;                // [S, E]
};

Operand floats(const Doubles& values, std::int64_t cols) {
  Operand operand(DType::f32, static_cast<std::int64_t>(values.size()) / cols, cols);
  operand.set(values);
  return operand;
}

// The definition (kernels/routing/balance.hpp).
double balance_of(const Statistics& s) {
  double sum = 0;
  for (std::size_t i = 0; i < s.counts.size(); ++i)
    sum += static_cast<double>(s.num_experts) * s.counts[i] /
           static_cast<double>(s.sequence_length * s.top_k) * s.score_sums[i] /
           static_cast<double>(s.sequence_length);
  return sum;
}

// What the kernel adds to sums that are not empty.
std::vector<double> added(const Statistics& s, const Doubles& lse, double num_sequences = 1,
                          double num_tokens = 1) {
  const Tensor sums(tested(), Purpose::workspace, DType::f64, {2});
  sums->as<double>()[0] = 16;
  sums->as<double>()[1] = -8;
  kernels::add_auxiliary_losses(Operand::of_ints(s.counts, s.num_experts),
                                floats(s.score_sums, s.num_experts), floats(lse, 1),
                                {.top_k = s.top_k,
                                 .sequence_length = s.sequence_length,
                                 .num_sequences = num_sequences,
                                 .num_tokens = num_tokens},
                                sums);
  return {sums->as<double>()[0] - 16, sums->as<double>()[1] + 8};
}

const Statistics uneven{3, 2, 8, {7, 5, 4, 1, 8, 7}, {4, 2.5, 1.5, 0.5, 4.5, 3}};

TEST(BalanceLoss, IsOneAtPerfectBalanceAndTheNumberOfExpertsAtTheWorst) {
  EXPECT_DOUBLE_EQ(added({4, 2, 6, {3, 3, 3, 3}, {1.5, 1.5, 1.5, 1.5}}, {})[0], 1.0);
  EXPECT_DOUBLE_EQ(added({4, 1, 6, {0, 6, 0, 0}, {0, 6, 0, 0}}, {})[0], 4.0);
}

// Each sequence is judged on its own: two that are skewed in opposite ways do not cancel.
TEST(BalanceLoss, SequencesDoNotCancel) {
  EXPECT_DOUBLE_EQ(added({2, 1, 5, {5, 0, 0, 5}, {5, 0, 0, 5}}, {})[0], 4.0);
}

TEST(BalanceLoss, IsTheDefinitionOverTheSequencesOfTheStep) {
  EXPECT_NEAR(added(uneven, {}, 12)[0], balance_of(uneven) / 12, 1e-14);
}

TEST(BalanceLoss, SlopesAreItsChangeWithAProbability) {
  const Operand counts = Operand::of_ints(uneven.counts, 3), slopes(DType::f32, 2, 3);
  const double weight = 0.25;
  slopes.set(Doubles(6, std::numeric_limits<double>::quiet_NaN()));
  kernels::balance_slopes(counts, uneven.top_k, uneven.sequence_length, weight, slopes);
  for (std::size_t i = 0; i < 6; ++i) {
    Statistics moved = uneven;
    moved.score_sums[i] += 0.5;  // exact, and the loss is linear
    EXPECT_NEAR(slopes.values()[i], weight * (balance_of(moved) - balance_of(uneven)) / 0.5, 1e-7);
  }
}

TEST(ZLoss, IsTheSumOfSquaresOverTheTokensOfTheStep) {
  EXPECT_DOUBLE_EQ(added(uneven, {1.5, -2.0, 0.0}, 1, 5)[1], 6.25 / 5);
}

TEST(BalanceLoss, WrongShapesAreRefused) {
  const Tensor sums(tested(), Purpose::workspace, DType::f64, {2});
  const Operand counts = Operand::of_ints({1, 2, 3, 4}, 2), few(DType::f32, 1, 2);
  EXPECT_THROW(
      kernels::add_auxiliary_losses(counts, few, few, {.top_k = 1, .sequence_length = 1}, sums),
      InternalError);
  EXPECT_THROW(kernels::balance_slopes(counts, 1, 1, 1, few), InternalError);
}

TEST(ExpertLoad, AddsRowsByPlaceAndWhatWasDropped) {
  const Tensor load(tested(), Purpose::workspace, DType::i64, {4});
  std::ranges::fill(load->span<std::int64_t>(), 100);
  kernels::add_expert_load(Operand::of_ints({3, 0, 2}), 9, load);
  kernels::add_expert_load(Operand::of_ints({1, 1, 1}), 3, load);
  const std::span<const std::int64_t> sums = load->span<std::int64_t>();
  EXPECT_EQ(std::vector<std::int64_t>(sums.begin(), sums.end()),
            (std::vector<std::int64_t>{104, 101, 103, 104}));
  EXPECT_THROW(kernels::add_expert_load(Operand::of_ints({1}), 3, load), InternalError);
}

}  // namespace
}  // namespace switchyard::test
