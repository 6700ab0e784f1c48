// The layer with every router against the dense oracle, and what outputs may know of later tokens.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/experts/layer_check.hpp"
#include "tests/experts/numbers.hpp"
#include "tests/support/tested_device.hpp"

namespace switchyard::test {
namespace {

struct RouterCase {
  RouterConfig config;
  std::int64_t top_k;
  bool needs_shares = false;
};

std::vector<RouterCase> router_cases(std::int64_t num_experts) {
  const std::int64_t two = std::min<std::int64_t>(2, num_experts);
  std::vector<RouterCase> cases = {
      {{.score = RouterScore::sigmoid, .scale = 2.5}, two},
      {{.score = RouterScore::sigmoid}, 1},
      {{.softmax_over = SoftmaxOver::chosen, .scale = 0.5}, two},
      {{.jitter = 0.2}, 1},
      {{.kind = RouterKind::noisy_top_k, .jitter = 0.1}, two},
      {{.kind = RouterKind::sinkhorn}, 1},
      {{.kind = RouterKind::sinkhorn, .score = RouterScore::sigmoid}, two},
      {{.kind = RouterKind::base}, 1},
      {{.kind = RouterKind::base, .score = RouterScore::sigmoid}, two},
      {{.kind = RouterKind::expert_choice, .capacity = 1.5}, two},
      {{.kind = RouterKind::expert_choice}, num_experts},
      {{.kind = RouterKind::hash}, two},
      {{.kind = RouterKind::balanced}, two},
      {{.kind = RouterKind::imbalanced, .imbalance = 1}, two}};
  if (num_experts >= 2) cases.push_back({{.kind = RouterKind::gshard}, 2, true});
  if (num_experts >= 4) cases.push_back({{.kind = RouterKind::imbalanced, .imbalance = 1.75}, two});
  if (num_experts % 4 == 0) {
    cases.push_back({{.groups = 4, .top_groups = 2}, 2});
    cases.push_back({{.score = RouterScore::sigmoid,
                      .scale = 1.5,
                      .groups = 2,
                      .top_groups = 1,
                      .group_score = kernels::GroupScore::best_two},
                     2});
  }
  if (is_tested_on_card())
    std::erase_if(cases, [](const RouterCase& each) { return !each.config.runs_on_card(); });
  return cases;
}

// Whether any output before position 2 of its sequence changes with the tokens from there on.
bool outputs_depend_on_later_tokens(const LayerCase& c, bool training) {
  Problem problem(c);
  const std::unique_ptr<Device> device = make_tested_device();
  const Mesh mesh(world(), layout(world().size()));
  LayerRun run(*device, mesh, c);
  LayerRun::Batch& batch = run.add_batch();
  run.load_weights(problem.moe);
  run.load_inputs(batch, problem);
  run.forward(batch, training);
  const Doubles before = to_doubles(batch.y);
  const auto is_later = [&](std::size_t i) {
    return static_cast<std::int64_t>(i) / c.hidden % c.sequence_length >= 2;
  };
  for (std::size_t i = 0; i < problem.x.size(); ++i)
    if (is_later(i)) problem.x[i] = -3 * problem.x[i] + 0.5;
  run.load_inputs(batch, problem);
  run.forward(batch, training);
  const Doubles after = to_doubles(batch.y);
  std::int64_t num_changed = 0, num_later_changed = 0;
  for (std::size_t i = 0; i < before.size(); ++i)
    if (before[i] != after[i]) ++(is_later(i) ? num_later_changed : num_changed);
  EXPECT_GT(num_later_changed, 0);
  world().all_reduce_values(std::span(&num_changed, 1), ReduceOp::sum);
  return num_changed > 0;
}

class MoeLayerRouters : public ::testing::TestWithParam<std::int64_t> {};

// Every kind of router, whatever the scores: values and all gradients on all layouts.
TEST_P(MoeLayerRouters, is_the_oracle_with_every_router) {
  const std::int64_t num_experts = GetParam();
  for (const RouterCase& router : router_cases(num_experts))
    for (const bool normalize : {true, false})
      check_case({.num_experts = num_experts,
                  .top_k = router.top_k,
                  .normalize = normalize || router.needs_shares,
                  .routing = normalize ? Routing::natural : Routing::all_to_last_expert,
                  .router = router.config});
}

TEST_P(MoeLayerRouters, is_near_the_oracle_with_every_router_in_bf16) {
  const std::int64_t num_experts = GetParam();
  for (const RouterCase& router : router_cases(num_experts))
    check_case({.num_experts = num_experts,
                .top_k = router.top_k,
                .dtype = DType::bf16,
                .router = router.config});
}

// What a token gets must not depend on tokens that come after it, to the bit; with routers that see
// the future it must, while training alone.
TEST_P(MoeLayerRouters, leaks_nothing_from_the_future_but_where_it_is_allowed) {
  const std::int64_t num_experts = GetParam();
  for (const RouterCase& router : router_cases(num_experts))
    for (const bool training : {true, false}) {
      const LayerCase c{.num_experts = num_experts,
                        .top_k = router.top_k,
                        .normalize = false,
                        .router = router.config};
      SCOPED_TRACE(c.describe());
      const bool may_leak = training && router.config.sees_future();
      const bool leaks = outputs_depend_on_later_tokens(c, training);
      EXPECT_TRUE(may_leak || !leaks);
      EXPECT_TRUE(leaks || !may_leak || num_experts <= router.top_k);
    }
}

INSTANTIATE_TEST_SUITE_P(experts, MoeLayerRouters, ::testing::Values(1, 3, 4, 5, 8));

}  // namespace
}  // namespace switchyard::test
