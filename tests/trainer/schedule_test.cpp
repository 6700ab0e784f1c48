#include "trainer/schedule.hpp"

#include <gtest/gtest.h>

namespace switchyard {
namespace {

constexpr Schedule all_schedules[] = {Schedule::cosine, Schedule::linear, Schedule::constant_decay};

OptimizerConfig config_for(Schedule schedule) {
  OptimizerConfig config;
  config.schedule = schedule;
  config.learning_rate = 1.0;
  config.min_learning_rate = 0.1;
  config.warmup_steps = 10;
  config.decay_steps = 19;
  return config;
}

TEST(Schedule, WarmUpRisesLinearlyFromZeroToThePeak) {
  for (const Schedule schedule : all_schedules) {
    const OptimizerConfig config = config_for(schedule);
    EXPECT_EQ(learning_rate_at(config, 110, 0), 0.0);
    EXPECT_DOUBLE_EQ(learning_rate_at(config, 110, 1), 0.1);
    EXPECT_DOUBLE_EQ(learning_rate_at(config, 110, 5), 0.5);
    EXPECT_DOUBLE_EQ(learning_rate_at(config, 110, 10), 1.0);
  }
}

// The last step is step 109 here and in what follows.
TEST(Schedule, EndsAtTheLowRateAfterTheLastStepAndStaysThere) {
  for (const Schedule schedule : all_schedules) {
    const OptimizerConfig config = config_for(schedule);
    EXPECT_GT(learning_rate_at(config, 109, 109), 0.1) << name_of(schedule);
    EXPECT_DOUBLE_EQ(learning_rate_at(config, 109, 110), 0.1) << name_of(schedule);
    EXPECT_DOUBLE_EQ(learning_rate_at(config, 109, 500), 0.1) << name_of(schedule);
  }
}

// A step at a rate of 0 would compute for nothing.
TEST(Schedule, EveryStepOfARunLearnsByDefault) {
  OptimizerConfig config;
  ASSERT_EQ(config.min_learning_rate, 0);
  for (const Schedule schedule : all_schedules)
    for (const std::int64_t num_steps : {1, 2, 7})
      for (std::int64_t warmup = 0; warmup <= num_steps; ++warmup)
        for (std::int64_t step = 1; step <= num_steps; ++step) {
          config.schedule = schedule;
          config.warmup_steps = warmup;
          config.decay_steps = config.schedule == Schedule::constant_decay ? num_steps - warmup : 0;
          EXPECT_GT(learning_rate_at(config, num_steps, step), 0)
              << name_of(schedule) << " " << warmup << " " << step << " of " << num_steps;
        }
}

TEST(Schedule, KnownPointsOfEachCurve) {
  EXPECT_NEAR(learning_rate_at(config_for(Schedule::cosine), 109, 60), 0.55, 1e-15);
  EXPECT_NEAR(learning_rate_at(config_for(Schedule::cosine), 109, 35),
              0.1 + 0.9 * (1 + 0.70710678118654752) / 2, 1e-15);
  EXPECT_NEAR(learning_rate_at(config_for(Schedule::linear), 109, 60), 0.55, 1e-15);
  EXPECT_NEAR(learning_rate_at(config_for(Schedule::linear), 109, 85), 0.325, 1e-15);
  EXPECT_EQ(learning_rate_at(config_for(Schedule::constant_decay), 109, 90), 1.0);
  EXPECT_NEAR(learning_rate_at(config_for(Schedule::constant_decay), 109, 100), 0.55, 1e-15);
}

TEST(Schedule, NeverRisesAfterTheWarmUp) {
  for (const Schedule schedule : all_schedules)
    for (std::int64_t step = 11; step <= 120; ++step)
      EXPECT_LE(learning_rate_at(config_for(schedule), 110, step),
                learning_rate_at(config_for(schedule), 110, step - 1))
          << name_of(schedule) << " " << step;
}

TEST(Schedule, WithoutWarmUpTheFirstStepHasThePeak) {
  for (const Schedule schedule : all_schedules) {
    OptimizerConfig config = config_for(schedule);
    config.warmup_steps = 0;
    config.decay_steps = 100;
    EXPECT_EQ(learning_rate_at(config, 100, 1), 1.0) << name_of(schedule);
    EXPECT_LT(learning_rate_at(config, 100, 2), 1.0) << name_of(schedule);
  }
}

TEST(Schedule, ConstantWithoutDecayStaysAtThePeak) {
  OptimizerConfig config = config_for(Schedule::constant_decay);
  config.decay_steps = 0;
  EXPECT_EQ(learning_rate_at(config, 110, 109), 1.0);
}

TEST(Schedule, WarmUpLongerThanTheRunStaysOnTheSlope) {
  OptimizerConfig config = config_for(Schedule::cosine);
  config.warmup_steps = 1000;
  EXPECT_DOUBLE_EQ(learning_rate_at(config, 100, 100), 0.1);
}

}  // namespace
}  // namespace switchyard
