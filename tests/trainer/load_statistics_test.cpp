// What a step tells of the experts' load is counted over all ranks and micro-steps.
#include "trainer/load_statistics.hpp"

#include <gtest/gtest.h>

#include "tests/support/mpi_test.hpp"

namespace switchyard::test {
namespace {

RouteCounts route_of(std::vector<std::int64_t> rows, std::int64_t num_dropped) {
  RouteCounts route;
  route.expert_counts = std::move(rows);
  route.num_dropped = num_dropped;
  return route;
}

TEST(LoadStatistics, AreThoseOfAllRanksMicroStepsAndLayers) {
  LoadStatistics load;
  // In the second layer every rank sends its first micro-batch to an expert of its own.
  std::vector<std::int64_t> own(4);
  own[static_cast<std::size_t>(world().rank())] = 10;
  const RouteCounts even = route_of({5, 5, 5, 5}, 0), first = route_of(own, 6),
                    second = route_of({2, 0, 0, 0}, 2);
  load.add({&even, &first});
  load.add({&even, &second});
  const ExpertLoad found = load.over(world());
  const double ranks = world().size();
  // Expert 0 of the second layer: 10 rows of rank 0, and 2 of each.
  EXPECT_DOUBLE_EQ(found.max_over_mean, (10 + 2 * ranks) * 4 / (12 * ranks));
  EXPECT_DOUBLE_EQ(found.dropped_fraction, 8.0 / (20 + 20 + 10 + 6 + 2 + 2));
  load.reset();
  load.add({&even});
  EXPECT_DOUBLE_EQ(load.over(world()).max_over_mean, 1);
  EXPECT_DOUBLE_EQ(load.over(world()).dropped_fraction, 0);
}

TEST(LoadStatistics, AModelWithoutExpertsIsBalanced) {
  LoadStatistics load;
  load.add({});
  EXPECT_EQ(load.over(world()).max_over_mean, 1);
  EXPECT_EQ(load.over(world()).dropped_fraction, 0);
}

}  // namespace
}  // namespace switchyard::test
