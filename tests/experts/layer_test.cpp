// The layer on 1 to 4 ranks and every expert degree that divides them, against the dense oracle.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "tests/experts/layer_check.hpp"
#include "tests/experts/numbers.hpp"
#include "tests/support/tested_device.hpp"

namespace switchyard::test {
namespace {

class MoeLayerTest : public ::testing::TestWithParam<std::int64_t> {};

TEST_P(MoeLayerTest, is_the_oracle_in_f32) {
  const std::int64_t num_experts = GetParam();
  for (std::int64_t top_k = 1; top_k <= std::min<std::int64_t>(3, num_experts); ++top_k)
    for (const bool normalize : {true, false})
      for (const Routing routing : routings)
        check_case({.num_experts = num_experts,
                    .top_k = top_k,
                    .normalize = normalize,
                    .routing = routing});
}

TEST_P(MoeLayerTest, is_near_the_oracle_in_bf16) {
  const std::int64_t num_experts = GetParam();
  for (const Routing routing : routings)
    check_case({.num_experts = num_experts,
                .top_k = std::min<std::int64_t>(2, num_experts),
                .routing = routing,
                .dtype = DType::bf16});
}

TEST_P(MoeLayerTest, drops_the_same_outputs_on_every_layout) {
  const std::int64_t num_experts = GetParam();
  for (const std::int64_t top_k : {std::int64_t{1}, std::min<std::int64_t>(2, num_experts)})
    check_case({.num_experts = num_experts, .top_k = top_k, .dropout = 0.3});
}

// A router of which a part is the test's own: the layer knows nothing of it.
TEST_P(MoeLayerTest, takes_a_router_that_drops_choices) {
  const std::int64_t num_experts = GetParam();
  for (std::int64_t top_k = 1; top_k <= std::min<std::int64_t>(3, num_experts); ++top_k)
    for (const double dropout : {0.0, 0.3})
      for (const Routing routing : routings)
        check_case({.num_experts = num_experts,
                    .top_k = top_k,
                    .normalize = top_k != 2,
                    .routing = routing,
                    .dropout = dropout,
                    .drops = true});
  check_case({.num_experts = num_experts,
              .top_k = std::min<std::int64_t>(2, num_experts),
              .dtype = DType::bf16,
              .drops = true});
}

// Beside the routed experts; of the narrower one a width of its own.
TEST_P(MoeLayerTest, has_shared_experts_with_and_without_a_gate) {
  const std::int64_t num_experts = GetParam();
  for (const SharedExpertsConfig& shared :
       {SharedExpertsConfig{.number = 2}, SharedExpertsConfig{.number = 1, .intermediate = 5},
        SharedExpertsConfig{.number = 1, .gate = SharedGate::sigmoid}})
    for (const DType dtype : {DType::f32, DType::bf16})
      check_case({.num_experts = num_experts,
                  .top_k = std::min<std::int64_t>(2, num_experts),
                  .dtype = dtype,
                  .dropout = dtype == DType::f32 ? 0.3 : 0,
                  .shared = shared});
}

// Over all ranks' tokens: the counts are the same numbers on every layout, and so are all bits that
// a token gets.
TEST_P(MoeLayerTest, balances_over_the_tokens_of_all_ranks) {
  const std::int64_t num_experts = GetParam();
  for (const BalanceScope scope : {BalanceScope::micro_step, BalanceScope::step})
    for (const Routing routing : routings)
      for (const double dy_scale : {0.2, 0.0})
        check_case({.num_experts = num_experts,
                    .top_k = std::min<std::int64_t>(2, num_experts),
                    .routing = routing,
                    .dy_scale = dy_scale,
                    .scope = scope});
}

// Importance and load of noisy top-k, over a sequence and over the tokens of all ranks.
TEST_P(MoeLayerTest, has_the_importance_and_load_losses_of_noisy_top_k) {
  if (is_tested_on_card()) GTEST_SKIP() << "no noise there";
  const std::int64_t num_experts = GetParam();
  for (const BalanceLoss loss :
       {BalanceLoss::importance, BalanceLoss::load, BalanceLoss::importance_and_load})
    for (const BalanceScope scope : {BalanceScope::sequence, BalanceScope::micro_step})
      for (const double dy_scale : {0.2, 0.0})
        check_case({.num_experts = num_experts,
                    .top_k = std::min<std::int64_t>(loss == BalanceLoss::load ? 1 : 2, num_experts),
                    .normalize = loss != BalanceLoss::load,
                    .dy_scale = dy_scale,
                    .router = {.kind = RouterKind::noisy_top_k, .scale = 1.5, .jitter = 0.1},
                    .scope = scope,
                    .loss = loss});
}

// The second micro-step of two: its loss counts the first one's choices, dropped ones not.
TEST_P(MoeLayerTest, balances_over_the_step_so_far) {
  for (const bool drops : {false, true}) {
    const LayerCase c{.num_experts = GetParam(),
                      .top_k = 1,
                      .drops = drops,
                      .dy_scale = 0.01,
                      .scope = BalanceScope::step};
    const Problem first(c);
    Problem second(c, "second");
    second.moe.earlier = first.forward.counts;
    second.moe.num_earlier = static_cast<double>(c.num_tokens * c.top_k);
    second.moe.balance_weight /= 2;  // half of the step's tokens
    second.moe.z_weight /= 2;
    second.solve();
    EXPECT_GT(second.forward.margin, 1e-5) << "rounding could change a choice";
    const std::unique_ptr<Device> device = make_tested_device();
    for (const std::int64_t degree : expert_degrees()) {
      SCOPED_TRACE(c.describe() + ", expert axis " + std::to_string(degree));
      const Mesh mesh(world(), layout(degree));
      LayerRun run(*device, mesh, c);
      LayerRun::Batch& batch = run.add_batch();
      run.load_weights(first.moe);
      run.load_inputs(batch, first);
      run.begin_micro_step(0, 2);
      run.forward(batch);
      run.load_inputs(batch, second);
      run.begin_micro_step(1, 2);
      run.forward(batch);
      run.backward(batch);
      run.reduce_gradients();
      expect_as_oracle(run, batch, c, second);
      double balance = run.losses()[0];
      world().all_reduce_values({&balance, 1}, ReduceOp::sum);
      EXPECT_NEAR(balance, second.forward.balance / 2, 1e-6 * second.forward.balance);
    }
  }
}

// What is dropped is a matter of the sequence, and the balance loss counts it.
TEST_P(MoeLayerTest, drops_what_is_over_the_capacity_of_a_sequence) {
  if (is_tested_on_card()) GTEST_SKIP() << "no choices are dropped there";
  const std::int64_t num_experts = GetParam();
  for (const kernels::DropBy drop_by : {kernels::DropBy::position, kernels::DropBy::score})
    for (const double capacity_factor : {0.5, 1.0, 1.5})
      for (const Routing routing : routings)
        check_case({.num_experts = num_experts,
                    .top_k = std::min<std::int64_t>(2, num_experts),
                    .normalize = capacity_factor != 1.0,
                    .routing = routing,
                    .capacity_factor = capacity_factor,
                    .drop_by = drop_by});
}

// Without a gradient from above, all that is left is the auxiliary losses'.
TEST_P(MoeLayerTest, has_the_gradients_of_the_auxiliary_losses) {
  const std::int64_t num_experts = GetParam();
  for (const BalanceReduction reduction : {BalanceReduction::mean, BalanceReduction::sum})
    check_case({.num_experts = num_experts,
                .top_k = std::min<std::int64_t>(2, num_experts),
                .dy_scale = 0,
                .reduction = reduction});
}

// Experts in a space narrower, or wider, than the tokens'.
TEST_P(MoeLayerTest, is_the_oracle_in_a_latent_space) {
  const std::int64_t num_experts = GetParam();
  const std::int64_t top_k = std::min<std::int64_t>(2, num_experts);
  for (const std::int64_t latent : {7, 20})
    for (const Routing routing : routings)
      check_case(
          {.num_experts = num_experts, .top_k = top_k, .routing = routing, .latent = latent});
  check_case({.num_experts = num_experts,
              .top_k = top_k,
              .dropout = 0,
              .drops = true,
              .latent = 6,
              .shared = {.number = 1}});
}

INSTANTIATE_TEST_SUITE_P(experts, MoeLayerTest, ::testing::Values(1, 3, 4, 5, 8));

}  // namespace
}  // namespace switchyard::test
