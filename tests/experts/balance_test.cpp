#include "experts/balance.hpp"

#include <gtest/gtest.h>

#include <vector>

#include "tensor/error.hpp"

namespace switchyard {
namespace {

TEST(BalanceLoss, is_one_at_perfect_balance_and_the_number_of_experts_at_the_worst) {
  const BalanceDims dims{.num_experts = 4, .top_k = 2, .sequence_length = 6};
  const std::vector<std::int32_t> even(4, 3);
  const std::vector<float> even_probs(4, 1.5f);
  EXPECT_DOUBLE_EQ(balance_loss_sum(even, even_probs, dims), 1.0);

  const BalanceDims top1{.num_experts = 4, .top_k = 1, .sequence_length = 6};
  const std::vector<std::int32_t> all_to_one = {0, 6, 0, 0};
  const std::vector<float> one_prob = {0, 6, 0, 0};
  EXPECT_DOUBLE_EQ(balance_loss_sum(all_to_one, one_prob, top1), 4.0);
}

// Each sequence is judged on its own: two that are skewed in opposite ways do not cancel.
TEST(BalanceLoss, sequences_do_not_cancel) {
  const BalanceDims dims{.num_experts = 2, .top_k = 1, .sequence_length = 5};
  const std::vector<std::int32_t> counts = {5, 0, 0, 5};
  const std::vector<float> prob_sums = {5, 0, 0, 5};
  EXPECT_DOUBLE_EQ(balance_loss_sum(counts, prob_sums, dims), 4.0);
}

TEST(BalanceLoss, slopes_are_its_change_with_a_probability) {
  const BalanceDims dims{.num_experts = 3, .top_k = 2, .sequence_length = 8};
  const std::vector<std::int32_t> counts = {7, 5, 4, 1, 8, 7};
  std::vector<float> prob_sums = {4, 2.5, 1.5, 0.5, 4.5, 3};
  std::vector<float> slopes(6);
  const double scale = 0.25;
  balance_prob_slopes(counts, dims, scale, slopes);
  for (std::size_t i = 0; i < slopes.size(); ++i) {
    const double before = balance_loss_sum(counts, prob_sums, dims);
    prob_sums[i] += 0.5f;  // exact, and the loss is linear
    const double after = balance_loss_sum(counts, prob_sums, dims);
    EXPECT_NEAR(slopes[i], scale * (after - before) / 0.5, 1e-7);
    prob_sums[i] -= 0.5f;
  }
}

TEST(ZLoss, is_the_sum_of_squares) {
  const std::vector<float> lse = {1.5f, -2.0f, 0.0f};
  EXPECT_DOUBLE_EQ(z_loss_sum(lse), 6.25);
}

TEST(BalanceScope, an_unknown_one_is_a_configuration_error) {
  ExpertsConfig config;
  EXPECT_NO_THROW(check_balance_scope(config));
  config.balance_scope = "galaxy";
  try {
    check_balance_scope(config);
    FAIL() << "no error";
  } catch (const ConfigError& error) {
    EXPECT_STREQ(error.what(),
                 "experts.balance_scope: 'galaxy' is unknown; the only scope is 'sequence'");
  }
}

}  // namespace
}  // namespace switchyard
