#include "trainer/watch/slow_ranks.hpp"

#include <gtest/gtest.h>

namespace switchyard {
namespace {

TEST(SlowRanks, NamesWhatTakesAQuarterMoreThanTheMedian) {
  const std::vector<SlowRank> slow = find_slow(std::vector{1.0, 1.02, 1.8, 0.99});
  ASSERT_EQ(slow.size(), 1u);
  EXPECT_EQ(slow[0].rank, 2);
  EXPECT_EQ(describe(slow[0], "b"),
            "rank 2 (b) is slow: its computation takes 1.8 s a step, the median 1 s");
  EXPECT_TRUE(find_slow(std::vector{1.0, 1.2, 1.24, 1.1}).empty());
}

TEST(SlowRanks, OfTwoRanksOneCanBeSlow) {
  const std::vector<SlowRank> slow = find_slow(std::vector{2.0, 1.0});
  ASSERT_EQ(slow.size(), 1u);
  EXPECT_EQ(slow[0].rank, 0);
}

TEST(SlowRanks, MillisecondsAreNoise) {
  EXPECT_TRUE(find_slow(std::vector{0.001, 0.001, 0.005}).empty());
  EXPECT_TRUE(find_slow(std::vector<double>{}).empty());
}

}  // namespace
}  // namespace switchyard
