// Sampling: its limits, its frequencies, and that the numbers are a function of seed and position.
#include "model/sampling.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "tensor/error.hpp"

namespace switchyard {
namespace {

const std::vector<float> logits = {0.5f, 2.0f, -1.0f, 2.0f, 1.0f};

std::vector<double> frequencies(double temperature, double top_p, int num_draws) {
  std::vector<double> counts(logits.size());
  for (int i = 0; i < num_draws; ++i) {
    const auto position = static_cast<std::uint64_t>(i);
    counts[static_cast<std::size_t>(
        sample(logits, temperature, top_p, sampling_uniform(7, 0, position)))] += 1.0 / num_draws;
  }
  return counts;
}

TEST(SamplingTest, TemperatureZeroTakesTheLargestAndTheLowerOfEquals) {
  EXPECT_EQ(sample(logits, 0, 1, 0.99), 1);
}

TEST(SamplingTest, ATinyNucleusIsTheLargest) {
  for (const double uniform : {0.0, 0.5, 0.999}) EXPECT_EQ(sample(logits, 1, 1e-9, uniform), 1);
}

TEST(SamplingTest, FrequenciesAreTheSoftmax) {
  constexpr int num_draws = 40'000;
  for (const double temperature : {0.5, 1.0, 3.0}) {
    double total = 0;
    for (const float logit : logits) total += std::exp(logit / temperature);
    const std::vector<double> found = frequencies(temperature, 1, num_draws);
    for (std::size_t i = 0; i < logits.size(); ++i) {
      const double expected = std::exp(logits[i] / temperature) / total;
      // Five standard deviations of a binomial frequency.
      EXPECT_NEAR(found[i], expected, 5 * std::sqrt(expected * (1 - expected) / num_draws));
    }
  }
}

// exp of the logits, largest first: 7.39, 7.39, 2.72, 1.65, 0.37 of 19.51. Two tokens reach 0.75,
// three reach 0.8.
TEST(SamplingTest, TheNucleusIsTheSmallestSetThatReachesTopP) {
  const std::vector<double> two = frequencies(1, 0.75, 4000);
  EXPECT_EQ(two[0] + two[2] + two[4], 0);
  EXPECT_NEAR(two[1], 0.5, 0.05);
  const std::vector<double> three = frequencies(1, 0.8, 4000);
  EXPECT_EQ(three[0] + three[2], 0);
  EXPECT_NEAR(three[4], 2.718 / (2 * 7.389 + 2.718), 0.05);
}

TEST(SamplingTest, NumbersDependOnSeedSequenceAndPosition) {
  EXPECT_EQ(sampling_uniform(1, 2, 3), sampling_uniform(1, 2, 3));
  EXPECT_NE(sampling_uniform(1, 2, 3), sampling_uniform(2, 2, 3));
  EXPECT_NE(sampling_uniform(1, 2, 3), sampling_uniform(1, 3, 3));
  EXPECT_NE(sampling_uniform(1, 2, 3), sampling_uniform(1, 2, 4));
  double mean = 0;
  for (std::uint64_t i = 0; i < 10'000; ++i) mean += sampling_uniform(5, 0, i) / 10'000;
  EXPECT_NEAR(mean, 0.5, 5 * std::sqrt(1.0 / 12 / 10'000));
}

TEST(SamplingTest, DamagedLogitsAreAnError) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_THROW(sample(std::vector<float>{0, nan, 1}, 1, 1, 0.5), NumericalError);
  EXPECT_THROW(sample(std::vector<float>{0, infinity}, 1, 1, 0.5), NumericalError);
  EXPECT_THROW(sample(std::vector<float>{-infinity, -infinity}, 0, 1, 0.5), NumericalError);
}

TEST(SamplingTest, ImpossibleTokensAreNeverDrawn) {
  const std::vector<float> some = {-std::numeric_limits<float>::infinity(), 0.0f};
  for (const double uniform : {0.0, 0.5, 0.999999999}) EXPECT_EQ(sample(some, 1, 1, uniform), 1);
}

}  // namespace
}  // namespace switchyard
