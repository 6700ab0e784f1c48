// The layout changes neither losses nor gradients: every legal (data, expert) of this number of
// ranks against one rank, which each process computes for itself.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>

#include "tests/end_to_end/small_run.hpp"
#include "tests/support/mpi_test.hpp"

namespace switchyard::test {
namespace {

constexpr double tolerance = 1e-5;  // relative, fp32

void expect_equal_gradients(SmallRun& reference, SmallRun& run, const std::string& when) {
  for (const Parameter& parameter : reference.trainer.store().parameters())
    EXPECT_LT(gradient_error(parameter, run, world()), tolerance)
        << when << ": " << parameter.name();
}

void expect_equal(double actual, double expected, const std::string& what) {
  EXPECT_LE(std::abs(actual - expected), tolerance * std::abs(expected))
      << what << ": " << actual << " against " << expected;
}

void expect_thirty_equal_steps(MakeConfig make_config) {
  const std::unique_ptr<Group> alone = make_local_group("alone");
  for (const std::int64_t expert : divisors(world().size())) {
    SCOPED_TRACE("expert " + std::to_string(expert));
    SmallRun reference(*alone, make_config(1));
    SmallRun run(world(), make_config(expert));
    const StepResult first = run.train(1, 1).front();
    const StepResult first_expected = reference.train(1, 1).front();
    expect_equal(first.loss, first_expected.loss, "loss of step 1");
    expect_equal_gradients(reference, run, "step 1");

    const std::vector<StepResult> steps = run.train(2, 30);
    const std::vector<StepResult> expected = reference.train(2, 30);
    for (std::size_t i = 0; i < steps.size(); ++i) {
      const std::string step = " of step " + std::to_string(i + 2);
      expect_equal(steps[i].loss, expected[i].loss, "loss" + step);
      expect_equal(steps[i].losses.cross_entropy, expected[i].losses.cross_entropy,
                   "cross-entropy" + step);
      expect_equal(steps[i].losses.balance, expected[i].losses.balance, "balance loss" + step);
      expect_equal(steps[i].losses.z, expected[i].losses.z, "z-loss" + step);
      EXPECT_DOUBLE_EQ(steps[i].load.max_over_mean, expected[i].load.max_over_mean) << step;
    }
    EXPECT_LT(steps.back().loss, first.loss - 0.01) << "nothing was learnt in 30 steps";
  }
}

TEST(Layouts, LossesOfThirtyStepsAndGradientsEqualOneRank) {
  expect_thirty_equal_steps(small_config);
}

TEST(Layouts, SoTheyDoWithATiedHeadDenseLayersDropoutAndFewExperts) {
  expect_thirty_equal_steps(varied_config);
}

// bf16. A row's products, and what comes of them, have the same bits on every layout; only sums
// over rows (gradients, losses) are cut differently, and those are fp32 and doubles. So the first
// step agrees as in fp32. After it weights differ by fp32 rounding, and about one in 2^14 of them
// (2^-24 over 2^-10 between a weight and the next halfway point) is rounded to another bf16
// neighbour: a small part of the rounding to bf16 that every weight and activation has anyway. What
// all of that does to the loss is the distance of the bf16 run from the fp32 run, which is measured
// here; the layouts must be nearer to each other than that.
TEST(Layouts, SoTheyDoInBf16WithinItsOwnRounding) {
  const std::unique_ptr<Group> alone = make_local_group("alone");
  for (const MakeConfig make_config : all_configs) {
    Config config = make_config(1);
    SmallRun exact(*alone, config);
    config.run.precision = Precision::bf16;
    SmallRun reference(*alone, config);
    const std::vector<StepResult> expected = reference.train(1, 20), of_fp32 = exact.train(1, 20);
    double rounding = 0;
    for (std::size_t i = 0; i < expected.size(); ++i)
      rounding = std::max(rounding, std::abs(of_fp32[i].loss - expected[i].loss));
    EXPECT_LT(rounding, 0.01 * expected.front().loss) << "of bf16 itself";
    for (const std::int64_t expert : divisors(world().size())) {
      SCOPED_TRACE("expert " + std::to_string(expert));
      config = make_config(expert);
      config.run.precision = Precision::bf16;
      SmallRun run(world(), config);
      const std::vector<StepResult> steps = run.train(1, 20);
      expect_equal(steps.front().loss, expected.front().loss, "loss of step 1");
      expect_equal(steps.front().gradient_norm, expected.front().gradient_norm,
                   "gradient norm of step 1");
      double worst = 0;
      for (std::size_t i = 0; i < expected.size(); ++i)
        worst = std::max(worst, std::abs(steps[i].loss - expected[i].loss));
      EXPECT_LE(worst, rounding);
      if (world().rank() == 0)
        std::printf("expert %d: losses %.1e from one rank, %.1e from fp32\n",
                    static_cast<int>(expert), worst, rounding);
    }
  }
}

TEST(Layouts, AccumulationChangesNothing) {
  const std::unique_ptr<Group> alone = make_local_group("alone");
  for (const MakeConfig make_config : all_configs) {
    SmallRun reference(*alone, make_config(1));
    Config config = make_config(world().size());
    config.train.micro_batch = 0;  // all sequences of a rank at once
    SmallRun run(world(), config);
    const StepResult step = run.train(1, 1).front();
    const StepResult expected = reference.train(1, 1).front();
    expect_equal(step.loss, expected.loss, "loss");
    expect_equal(step.losses.balance, expected.losses.balance, "balance loss");
    expect_equal(step.losses.z, expected.losses.z, "z-loss");
    expect_equal(step.gradient_norm, expected.gradient_norm, "gradient norm");
    expect_equal_gradients(reference, run, "one micro-step against twelve");
  }
}

TEST(Layouts, PlannedBytesEqualAllocatedBytes) {
  for (const MakeConfig make_config : all_configs)
    for (const std::int64_t expert : divisors(world().size()))
      for (const Precision precision : {Precision::fp32, Precision::bf16})
        for (const std::int64_t micro_batch : {2, 0}) {
          Config config = make_config(expert);
          config.run.precision = precision;
          config.train.micro_batch = micro_batch;
          SmallRun run(world(), config);
          run.train(1, 3);
          const Plan plan =
              make_plan(config, world().size(), vocab_size, run.trainer.agree_on_rows());
          EXPECT_EQ(plan.fullest().peak_bytes, run.trainer.peak_memory_bytes())
              << config.experts.num_experts << " experts, " << name_of(precision) << ", expert "
              << expert << ", micro_batch " << micro_batch;
        }
}

TEST(Layouts, TheSameLayoutRepeatsBitForBit) {
  const std::int64_t expert = divisors(world().size()).back();
  Config config = small_config(expert);
  config.run.precision = Precision::bf16;
  SmallRun one(world(), config), two(world(), config);
  const std::vector<StepResult> first = one.train(1, 5), second = two.train(1, 5);
  for (std::size_t i = 0; i < first.size(); ++i) {
    EXPECT_EQ(first[i].loss, second[i].loss);
    EXPECT_EQ(first[i].gradient_norm, second[i].gradient_norm);
  }
}

}  // namespace
}  // namespace switchyard::test
