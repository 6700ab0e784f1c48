// The layer on 1 to 4 ranks and every expert degree that divides them, against the dense oracle.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "tests/experts/layer_run.hpp"
#include "tests/experts/numbers.hpp"
#include "tests/support/mpi_test.hpp"
#include "tests/support/recorded_group.hpp"
#include "tests/support/tested_device.hpp"

namespace switchyard::test {
namespace {

// Relative, by the norm of a whole tensor.
constexpr double f32_tolerance = 1e-5;
// bf16 rounds to nearest with 8 bits: unit 2^-9. A value passes at most eight roundings on its way
// (forward: gate_up, act, y row, sum; then dy row, d_act, d_gate_up, dx), each of relative size one
// unit at most; products and sums between them are fp32 and do not amplify the norm of the error
// beyond a factor of two, since silu(g) u doubles the relative error of its two factors at most.
constexpr double bf16_unit = 1.0 / 512;
constexpr double bf16_tolerance = 2 * 8 * bf16_unit;

double tolerance(DType dtype) {
  return dtype == DType::f32 ? f32_tolerance : bf16_tolerance;
}

std::vector<std::int64_t> expert_degrees() {
  std::vector<std::int64_t> degrees;
  for (int degree = 1; degree <= world().size(); ++degree)
    if (world().size() % degree == 0) degrees.push_back(degree);
  return degrees;
}

ParallelConfig layout(std::int64_t expert_degree) {
  return Mesh::resolved({.expert = expert_degree}, world().size());
}

// `values` of this rank against its rows of the oracle's [rows, cols].
double error_of(const TensorView& values, const Doubles& whole, std::int64_t first_row) {
  const Doubles mine = to_doubles(values);
  return relative_error(mine.data(), whole.data() + first_row * values.cols(), mine.size());
}

// Each row (an expert's matrix) on its own, so that a small one cannot hide behind a large one.
void expect_gradient(const LayerRun& run, const std::string& name, const Doubles& whole,
                     double limit) {
  const Parameter& parameter = run.parameter(name);
  const std::int64_t numel = parameter.spec().global_shape.inner_numel();
  for (std::int64_t e = 0; e < parameter.slice().num_held(); ++e) {
    const std::int64_t global = parameter.slice().index_of(e);
    const Doubles mine = to_doubles(parameter.gradient()[e].flat());
    const double* expected = whole.data() + global * numel;
    EXPECT_LE(relative_error(mine.data(), expected, mine.size()), limit)
        << name << ", expert " << global;
  }
}

void expect_losses(const LayerRun& run, const ReferenceMoe::Forward& expected) {
  double sums[2] = {run.losses()[0], run.losses()[1]};
  world().all_reduce_values(sums, ReduceOp::sum);
  if (!run.has_router_weights()) {
    EXPECT_EQ(sums[0], 0);
    EXPECT_EQ(sums[1], 0);
    return;
  }
  EXPECT_NEAR(sums[0], expected.balance, 1e-6 * expected.balance);
  EXPECT_NEAR(sums[1], expected.z, 1e-5 * expected.z + 1e-12);
}

// The rows of all ranks by expert are the oracle's, and what it drops is counted.
void expect_counts(const LayerRun::Batch& batch, const LayerCase& c, const Problem& problem) {
  const ReferenceMoe::Forward& expected = problem.forward;
  const std::span<const std::int32_t> mine = batch.counts->span<std::int32_t>();
  std::vector<std::int64_t> counts(mine.begin(), mine.end());
  counts.push_back(batch.saved.route.num_tokens * c.top_k);
  world().all_reduce_values(counts, ReduceOp::sum);
  const std::int64_t num_rows = std::accumulate(counts.begin(), counts.end() - 1, std::int64_t{0});
  EXPECT_EQ(counts.back() - num_rows,
            std::count(problem.moe.dropped.begin(), problem.moe.dropped.end(), true) +
                std::count(problem.moe.given.begin(), problem.moe.given.end(), -1));
  const auto num_experts = static_cast<std::size_t>(c.num_experts);
  for (std::size_t e = 0; e < num_experts; ++e) {
    double wanted = 0;
    for (std::size_t at = e; at < expected.counts.size(); at += num_experts)
      wanted += expected.counts[at];
    for (std::size_t slot = 0; problem.moe.dropped_are_counted && slot < expected.indices.size();
         ++slot)
      wanted -= expected.indices[slot] == e && problem.moe.dropped[slot];
    EXPECT_EQ(static_cast<double>(counts[e]), wanted) << "expert " << e;
  }
}

void expect_as_oracle(LayerRun& run, const LayerRun::Batch& batch, const LayerCase& c,
                      const Problem& problem) {
  const double limit = tolerance(c.dtype);
  EXPECT_LE(error_of(batch.y, problem.forward.y, run.first_token()), limit);
  EXPECT_LE(error_of(batch.dx, problem.gradients.x, run.first_token()), limit);
  expect_counts(batch, c, problem);
  if (c.router.has_weights()) {
    const Parameter& router = run.parameter("layers.0.router.weight");
    EXPECT_LE(error_of(router.gradient(), problem.gradients.router, 0), limit);
  }
  if (c.router.kind == RouterKind::noisy_top_k) {
    const Parameter& noise = run.parameter("layers.0.router.noise.weight");
    EXPECT_LE(error_of(noise.gradient(), problem.gradients.noise_router, 0), limit);
  }
  const Problem::Latent& latent = problem.latent;
  const bool is_latent = c.latent > 0;
  expect_gradient(run, "layers.0.experts.gate_up.weight",
                  is_latent ? latent.d_gate_up : problem.gradients.gate_up, limit);
  expect_gradient(run, "layers.0.experts.down.weight",
                  is_latent ? latent.d_expert_down : problem.gradients.down, limit);
  if (is_latent) {
    const auto error = [&](const char* name, const Doubles& expected) {
      return error_of(run.parameter(name).gradient(), expected, 0);
    };
    EXPECT_LE(error("layers.0.latent.down.weight", latent.d_down), limit);
    EXPECT_LE(error("layers.0.latent.up.weight", latent.d_up), limit);
  }
  const auto expect_shared = [&](const std::string& name, const Doubles& whole) {
    if (whole.empty()) return;
    EXPECT_LE(error_of(run.parameter("layers.0.shared_experts." + name).gradient(), whole, 0),
              limit)
        << name;
  };
  expect_shared("gate_up.weight", problem.gradients.shared_gate_up);
  expect_shared("down.weight", problem.gradients.shared_down);
  expect_shared("gate.weight", problem.gradients.shared_gate);
}

// Runs a case on all layouts; what the tokens get back must not even differ in a bit.
void check_case(const LayerCase& c) {
  SCOPED_TRACE(c.describe());
  const Problem problem(c);
  EXPECT_GT(problem.forward.margin, 1e-5) << "rounding could change a choice";
  const std::unique_ptr<Device> device = make_tested_device();
  Doubles first_y, first_dx;
  for (const std::int64_t degree : expert_degrees()) {
    SCOPED_TRACE("expert axis " + std::to_string(degree));
    const Mesh mesh(world(), layout(degree));
    LayerRun run(*device, mesh, c);
    LayerRun::Batch& batch = run.add_batch();
    run.load_weights(problem.moe, problem.latent);
    run.load_inputs(batch, problem);
    run.forward(batch);
    run.backward(batch);
    run.reduce_gradients();
    expect_as_oracle(run, batch, c, problem);
    expect_losses(run, problem.forward);
    if (degree == 1) {
      first_y = to_doubles(batch.y);
      first_dx = to_doubles(batch.dx);
    }
    EXPECT_EQ(to_doubles(batch.y), first_y);
    EXPECT_EQ(to_doubles(batch.dx), first_dx);
  }
}

constexpr Routing routings[] = {Routing::natural, Routing::all_to_last_expert,
                                Routing::none_to_first_expert};

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

// Every kind of router, whatever the scores: values and all gradients on all layouts.
TEST_P(MoeLayerTest, is_the_oracle_with_every_router) {
  const std::int64_t num_experts = GetParam();
  for (const RouterCase& router : router_cases(num_experts))
    for (const bool normalize : {true, false})
      check_case({.num_experts = num_experts,
                  .top_k = router.top_k,
                  .normalize = normalize || router.needs_shares,
                  .routing = normalize ? Routing::natural : Routing::all_to_last_expert,
                  .router = router.config});
}

TEST_P(MoeLayerTest, is_near_the_oracle_with_every_router_in_bf16) {
  const std::int64_t num_experts = GetParam();
  for (const RouterCase& router : router_cases(num_experts))
    check_case({.num_experts = num_experts,
                .top_k = router.top_k,
                .dtype = DType::bf16,
                .router = router.config});
}

// What a token gets must not depend on tokens that come after it, to the bit; with routers that see
// the future it must, while training alone.
TEST_P(MoeLayerTest, leaks_nothing_from_the_future_but_where_it_is_allowed) {
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

INSTANTIATE_TEST_SUITE_P(experts, MoeLayerTest, ::testing::Values(1, 3, 4, 5, 8));

// When the rows of the other experts are waited for, those that all tokens share have worked
// already, in both directions.
TEST(SharedExperts, WorkWhileRowsAreOnTheWire) {
  if (world().size() == 1) GTEST_SKIP() << "nothing travels";
  for (const bool shares : {false, true}) {
    const LayerCase c{.shared = {.number = shares ? 1 : 0}};
    const Problem problem(c);
    StartLog log(static_cast<std::uint64_t>(7 + world().rank()));
    RecordedGroup ranks(world(), log);
    const std::unique_ptr<Device> device = make_tested_device();
    const Mesh mesh(ranks, layout(world().size()));
    LayerRun run(*device, mesh, c);
    LayerRun::Batch& batch = run.add_batch();
    run.load_weights(problem.moe);
    run.load_inputs(batch, problem);
    std::vector<double> seconds;  // that experts have worked, at each wait
    log.on_wait = [&](const std::string& what) {
      if (what.starts_with("all_to_all"))
        seconds.push_back(device->profile().known_seconds(Part::experts));
    };
    for (const bool backward : {false, true}) {
      device->profile().reset();
      seconds.clear();
      if (backward)
        run.backward(batch);
      else
        run.forward(batch);
      ASSERT_GE(seconds.size(), 2U);  // there and back, the last two
      EXPECT_EQ(seconds[seconds.size() - 2] > 0, shares) << (backward ? "backward" : "forward");
      EXPECT_GT(seconds.back(), 0);
    }
  }
}

// An expert's rows are the tokens that chose it, of all ranks of the group, by token identity.
TEST(MoeLayerRows, reach_experts_in_the_order_of_token_identity) {
  const LayerCase c{.num_experts = 5, .top_k = 2};
  const Problem problem(c);
  const std::unique_ptr<Device> device = make_tested_device();
  for (const std::int64_t degree : expert_degrees()) {
    const Mesh mesh(world(), layout(degree));
    LayerRun run(*device, mesh, c);
    LayerRun::Batch& batch = run.add_batch();
    run.load_weights(problem.moe);
    run.load_inputs(batch, problem);
    run.forward(batch);
    const std::int64_t group_tokens = run.num_local_tokens() * degree;
    const std::int64_t begin = run.first_token() / group_tokens * group_tokens;
    const Slice& slice = run.parameter("layers.0.experts.down.weight").slice();
    Doubles expected;
    for (std::int64_t held = 0; held < slice.num_held(); ++held)
      for (std::int64_t slot = begin * c.top_k; slot < (begin + group_tokens) * c.top_k; ++slot)
        if (problem.forward.indices[static_cast<std::size_t>(slot)] ==
            static_cast<std::size_t>(slice.index_of(held))) {
          const auto row = problem.x.begin() + slot / c.top_k * c.hidden;
          expected.insert(expected.end(), row, row + c.hidden);
        }
    const Route& route = batch.saved.route;
    EXPECT_EQ(route.num_rows * c.hidden, std::ssize(expected));
    EXPECT_EQ(to_doubles(batch.derived.x_rows->slice_rows(0, route.num_rows)), expected);
  }
}

// A second micro-batch is in flight, skewed so that every buffer grows while the first one's record
// is still to be read.
TEST(MoeLayerRows, buffers_grow_in_place_under_a_pass_in_flight) {
  const LayerCase even{.num_experts = 4, .top_k = 1};
  LayerCase skewed = even;
  skewed.routing = Routing::all_to_last_expert;
  const Problem problem(even);
  Problem other(skewed, "other");
  const std::unique_ptr<Device> device = make_tested_device();
  for (const std::int64_t degree : expert_degrees()) {
    const Mesh mesh(world(), layout(degree));
    LayerRun run(*device, mesh, even);
    LayerRun::Batch& first = run.add_batch();
    LayerRun::Batch& second = run.add_batch();
    run.load_weights(problem.moe);
    run.load_inputs(first, problem);
    run.forward(first);
    const std::int64_t rows_before = run.agree_on_rows();
    const std::byte* address = first.derived.x_rows->data;
    run.load_weights(other.moe);
    run.load_inputs(second, other);
    run.forward(second);
    run.backward(second);
    const std::int64_t rows = run.agree_on_rows();
    EXPECT_TRUE(degree == 1 || rows > rows_before);
    EXPECT_EQ(rows, run.num_local_tokens() * degree);
    run.load_weights(problem.moe);
    run.backward(first);
    run.reduce_gradients();
    EXPECT_EQ(first.derived.x_rows->data, address);
    expect_as_oracle(run, first, even, problem);
  }
}

}  // namespace
}  // namespace switchyard::test
