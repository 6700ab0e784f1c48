// Balance beyond a sequence, and balance by a bias, on every layout of 1 to 4 ranks.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>

#include "tests/data/scratch_folder.hpp"
#include "tests/end_to_end/evaluation_file.hpp"
#include "tests/end_to_end/small_run.hpp"
#include "tests/support/mpi_test.hpp"
#include "tests/support/temporary_folder.hpp"
#include "trainer/checkpoint/checkpoint.hpp"

namespace switchyard::test {
namespace {

constexpr double tolerance = 1e-5;  // relative, fp32

// Two micro-steps whatever the layout: so the same sequences share one.
Config balance_config(std::int64_t expert, std::int64_t context = 1) {
  Config config = small_config(expert);
  config.parallel.context = context;
  config.train.micro_batch = config.train.global_batch / 2 / (world().size() / context);
  config.experts.balance_weight = 0.2;
  return config;
}

Config on_one_rank(Config config) {
  config.parallel = {};
  config.train.micro_batch = config.train.global_batch / 2;
  return config;
}

std::vector<Config> layouts() {
  std::vector<Config> all;
  for (const std::int64_t expert : divisors(world().size())) all.push_back(balance_config(expert));
  if (world().size() == 2 || world().size() == 4) all.push_back(balance_config(world().size(), 2));
  return all;
}

void expect_equal(double actual, double expected, const std::string& what) {
  EXPECT_LE(std::abs(actual - expected), tolerance * std::abs(expected))
      << what << ": " << actual << " against " << expected;
}

TEST(Balance, ScopesBeyondASequenceEqualOneRank) {
  const std::unique_ptr<Group> alone = make_local_group("alone");
  for (const BalanceScope scope : {BalanceScope::micro_step, BalanceScope::step})
    for (Config config : layouts()) {
      SCOPED_TRACE(std::string(name_of(scope)) + ", expert " +
                   std::to_string(config.parallel.expert) + ", context " +
                   std::to_string(config.parallel.context));
      config.experts.balance_scope = scope;
      SmallRun reference(*alone, on_one_rank(config)), run(world(), config);
      for (std::int64_t step = 1; step <= 5; ++step) {
        const StepResult actual = run.train(step, step).front();
        const StepResult expected = reference.train(step, step).front();
        expect_equal(actual.loss, expected.loss, "loss");
        expect_equal(actual.losses.balance, expected.losses.balance, "balance loss");
        expect_equal(actual.gradient_norm, expected.gradient_norm, "gradient norm");
        if (step > 1) continue;
        for (const Parameter& parameter : reference.trainer.store().parameters())
          EXPECT_LT(gradient_error(parameter, run, world()), tolerance) << parameter.name();
      }
      const Plan plan = make_plan(config, world().size(), vocab_size, run.trainer.agree_on_rows());
      EXPECT_EQ(plan.fullest().peak_bytes, run.trainer.peak_memory_bytes());
    }
}

// Importance and load are sums over whole sequences, or over all ranks', and only then a loss.
TEST(Balance, ImportanceAndLoadEqualOneRank) {
  if (is_tested_on_card()) GTEST_SKIP() << "no noise there";
  const std::unique_ptr<Group> alone = make_local_group("alone");
  for (const BalanceScope scope : {BalanceScope::sequence, BalanceScope::micro_step})
    for (Config config : layouts()) {
      SCOPED_TRACE(std::string(name_of(scope)) + ", expert " +
                   std::to_string(config.parallel.expert) + ", context " +
                   std::to_string(config.parallel.context));
      config.experts.router.kind = RouterKind::noisy_top_k;
      config.experts.balance_loss = BalanceLoss::importance_and_load;
      config.experts.balance_scope = scope;
      SmallRun reference(*alone, on_one_rank(config)), run(world(), config);
      for (std::int64_t step = 1; step <= 3; ++step) {
        const StepResult actual = run.train(step, step).front();
        const StepResult expected = reference.train(step, step).front();
        expect_equal(actual.loss, expected.loss, "loss");
        expect_equal(actual.losses.balance, expected.losses.balance, "balance loss");
        expect_equal(actual.gradient_norm, expected.gradient_norm, "gradient norm");
        EXPECT_GT(actual.losses.balance, 0);
      }
      const Plan plan = make_plan(config, world().size(), vocab_size, run.trainer.agree_on_rows());
      EXPECT_EQ(plan.fullest().peak_bytes, run.trainer.peak_memory_bytes());
    }
}

// What is dropped is a matter of the sequence: the same on every layout, to the choice.
TEST(Balance, CapacityDropsTheSameChoicesAsOneRank) {
  if (is_tested_on_card()) GTEST_SKIP() << "no choices are dropped there";
  const std::unique_ptr<Group> alone = make_local_group("alone");
  for (const kernels::DropBy drop_by : {kernels::DropBy::position, kernels::DropBy::score})
    for (Config config : layouts()) {
      if (config.parallel.context > 1) continue;
      SCOPED_TRACE(std::string(name_of(drop_by)) + ", expert " +
                   std::to_string(config.parallel.expert));
      config.experts.capacity_factor = 0.8;
      config.experts.drop_by = drop_by;
      SmallRun reference(*alone, on_one_rank(config)), run(world(), config);
      for (std::int64_t step = 1; step <= 5; ++step) {
        const StepResult actual = run.train(step, step).front();
        const StepResult expected = reference.train(step, step).front();
        expect_equal(actual.loss, expected.loss, "loss");
        expect_equal(actual.gradient_norm, expected.gradient_norm, "gradient norm");
        EXPECT_DOUBLE_EQ(actual.load.dropped_fraction, expected.load.dropped_fraction);
        EXPECT_GT(actual.load.dropped_fraction, 0.15);  // 0.2, if the choices were even
      }
      const Plan plan = make_plan(config, world().size(), vocab_size, run.trainer.agree_on_rows());
      EXPECT_EQ(plan.fullest().peak_bytes, run.trainer.peak_memory_bytes());
    }
}

// The scopes are three different losses.
TEST(Balance, ScopesDiffer) {
  std::vector<double> losses;
  for (const BalanceScope scope :
       {BalanceScope::sequence, BalanceScope::micro_step, BalanceScope::step}) {
    Config config = balance_config(1);
    config.experts.balance_scope = scope;
    SmallRun run(world(), config);
    losses.push_back(run.train(1, 1).front().losses.balance);
  }
  EXPECT_GT(losses[0], losses[1] * (1 + 1e-3));
  EXPECT_GT(std::abs(losses[1] / losses[2] - 1), 1e-6);
}

std::vector<float> biases_of(Trainer& trainer) {
  std::vector<float> biases;
  for (const Parameter& parameter : trainer.store().parameters()) {
    if (parameter.is_trained()) continue;
    const std::span<float> values = parameter.value().span<float>();
    biases.insert(biases.end(), values.begin(), values.end());
  }
  return biases;
}

// Integers decide, so the biases are the same numbers.
TEST(Balance, TheBiasEvensTheLoadOutTheSameWayOnEveryLayout) {
  const std::unique_ptr<Group> alone = make_local_group("alone");
  const auto with_bias = [](Config config, double rate) {
    config.model.embedding_std = 1;         // tokens that differ, as a router can tell apart
    config.optimizer.learning_rate = 1e-9;  // the bias alone moves
    config.experts.balance_weight = 0;
    config.experts.bias_rate = rate;
    return config;
  };
  // Scores of an untrained router lie about 0.02 apart: a bias that jumps by that much swings.
  constexpr double rate = 0.002;
  SmallRun without(*alone, with_bias(on_one_rank(balance_config(1)), 0));
  SmallRun reference(*alone, with_bias(on_one_rank(balance_config(1)), rate));
  constexpr std::int64_t num_steps = 40;
  const auto load_of_last = [](const std::vector<StepResult>& steps) {
    double sum = 0;
    for (auto step = steps.end() - 10; step != steps.end(); ++step) sum += step->load.max_over_mean;
    return sum / 10;
  };
  const double load_without = load_of_last(without.train(1, num_steps));
  const double load = load_of_last(reference.train(1, num_steps));
  EXPECT_LT(load, 1 + 0.8 * (load_without - 1)) << load_without;
  if (world().rank() == 0) std::printf("load %.3f with a bias, %.3f without\n", load, load_without);
  const std::vector<float> expected = biases_of(reference.trainer);
  ASSERT_EQ(std::ssize(expected), 2 * 5);
  for (const Config& layout : layouts()) {
    SmallRun run(world(), with_bias(layout, rate));
    run.train(1, num_steps);
    EXPECT_EQ(biases_of(run.trainer), expected) << "expert " << layout.parallel.expert;
    const Plan plan =
        make_plan(with_bias(layout, rate), world().size(), vocab_size, run.trainer.agree_on_rows());
    EXPECT_EQ(plan.fullest().peak_bytes, run.trainer.peak_memory_bytes());
    EXPECT_EQ(plan.num_state_elements, 2 * 5);
  }
}

// One step from zero: each bias is the rate, with a sign that the step's choices decide.
TEST(Balance, TheBiasMovesOnceAStep) {
  Config config = balance_config(1);
  config.experts.bias_rate = 0.5;
  SmallRun run(world(), config);
  run.train(1, 1);
  const std::vector<float> biases = biases_of(run.trainer);
  EXPECT_GT(std::ranges::count(biases, 0.5f), 0);
  EXPECT_GT(std::ranges::count(biases, -0.5f), 0);
  EXPECT_EQ(std::ranges::count_if(biases, [](float b) { return std::abs(b) == 0.5f || b == 0; }),
            std::ssize(biases));
}

TEST(Balance, TheBiasIsInTheCheckpointAndGoesOn) {
  const TemporaryFolder folder(world());
  const Report silent = [](const std::string&) {};
  Config config = balance_config(world().size());
  config.experts.bias_rate = 0.01;
  SmallRun unbroken(world(), config), broken(world(), config), resumed(world(), config);
  unbroken.train(1, 4);
  broken.train(1, 2);
  SaveRequest request;
  request.folder = folder.path() + "/checkpoints";
  request.state.step = 2;
  request.configuration = "test: true\n";
  const std::string path =
      save_checkpoint(request, broken.trainer.store(), broken.trainer.optimizer(), world(), silent)
          .path;
  load_checkpoint(path, resumed.trainer.store(), &resumed.trainer.optimizer(), world());
  resumed.trainer.weights_changed();
  EXPECT_EQ(biases_of(resumed.trainer), biases_of(broken.trainer));
  resumed.train(3, 4);
  EXPECT_EQ(biases_of(resumed.trainer), biases_of(unbroken.trainer));
}

// Histograms of integers, summed over ranks and micro-steps, say where the biases go: the same
// numbers on every layout, and within a few steps loads that are nearly alike.
TEST(Balance, QuantilesEvenTheLoadOutTheSameWayOnEveryLayout) {
  if (is_tested_on_card()) GTEST_SKIP() << "a bias moves by sign alone there";
  const std::unique_ptr<Group> alone = make_local_group("alone");
  const auto by_quantiles = [](Config config, double rate) {
    config.model.embedding_std = 1;
    config.optimizer.learning_rate = 1e-9;  // the bias alone moves
    config.experts.balance_weight = 0;
    config.experts.bias_rate = rate;
    config.experts.bias_rule = rate > 0 ? BiasRule::quantile : BiasRule::sign;
    return config;
  };
  constexpr std::int64_t num_steps = 12;
  const auto load_of_last = [](const std::vector<StepResult>& steps) {
    double sum = 0;
    for (auto step = steps.end() - 5; step != steps.end(); ++step) sum += step->load.max_over_mean;
    return sum / 5;
  };
  SmallRun without(*alone, by_quantiles(on_one_rank(balance_config(1)), 0));
  SmallRun reference(*alone, by_quantiles(on_one_rank(balance_config(1)), 0.5));
  const double load_without = load_of_last(without.train(1, num_steps));
  const double load = load_of_last(reference.train(1, num_steps));
  EXPECT_LT(load, 1 + 0.6 * (load_without - 1)) << load_without;
  if (world().rank() == 0)
    std::printf("load %.3f by quantiles, %.3f without\n", load, load_without);
  const std::vector<float> expected = biases_of(reference.trainer);
  ASSERT_EQ(std::ssize(expected), 2 * 5);
  for (const Config& layout : layouts()) {
    SmallRun run(world(), by_quantiles(layout, 0.5));
    run.train(1, num_steps);
    EXPECT_EQ(biases_of(run.trainer), expected) << "expert " << layout.parallel.expert;
    const Plan plan = make_plan(by_quantiles(layout, 0.5), world().size(), vocab_size,
                                run.trainer.agree_on_rows());
    EXPECT_EQ(plan.fullest().peak_bytes, run.trainer.peak_memory_bytes());
  }
}

class BalanceFile : public ScratchFolder {};

TEST_F(BalanceFile, AnEvaluationLeavesTheBiasAlone) {
  constexpr std::int64_t length = 16;
  const TokenFile tokens(write_evaluation_file(folder_, 3, length));
  Config config = balance_config(1);
  config.model.vocab_size = 260;
  config.experts.bias_rate = 0.5;
  for (const BiasRule rule : {BiasRule::sign, BiasRule::quantile}) {
    if (rule == BiasRule::quantile && is_tested_on_card()) continue;
    config.experts.bias_rule = rule;
    SmallRun run(world(), config);
    run.train(1, 1);
    const std::vector<float> before = biases_of(run.trainer);
    run.trainer.evaluate(FixedBatches(tokens, Split::valid, run.trainer.batch_layout(), 0));
    EXPECT_EQ(biases_of(run.trainer), before);
  }
}

}  // namespace
}  // namespace switchyard::test
