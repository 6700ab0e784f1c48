// The one exchange of a step's small numbers.
#include "trainer/step_report.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "tests/support/mpi_test.hpp"
#include "tests/support/recorded_group.hpp"

namespace switchyard::test {
namespace {

// Terms whose sum depends on the order.
double term(int rank) {
  return std::pow(-3.0, rank) * (0.1 + 1e-3 * rank) + (rank == 1 ? 1e16 : 0);
}

StepReport report_of(int rank) {
  StepReport report;
  report.sums = {.cross_entropy = term(rank),
                 .balance = 1,
                 .z = 2,
                 .squared_gradient_norm = rank + 0.5,
                 .spilled_bytes = 10.0 * rank};
  report.maxima = {.max_rows = 7.0 - rank,
                   .memory_bytes = 1e9 + rank,
                   .stop_signal = rank == 1 ? 10.0 : 0.0,
                   .spill_wait_seconds = 0.5 * rank,
                   .spill_copy_seconds = 3};
  report.computed_seconds = 0.25 * (rank + 1);
  return report;
}

TEST(StepReport, AddsUpInRankOrderAndTakesTheLargest) {
  const int size = world().size();
  const GatheredReport result = gather(report_of(world().rank()), world());
  double cross_entropy = term(0);
  for (int rank = 1; rank < size; ++rank) cross_entropy += term(rank);
  EXPECT_EQ(std::bit_cast<std::uint64_t>(result.sums.cross_entropy),
            std::bit_cast<std::uint64_t>(cross_entropy));
  EXPECT_EQ(result.sums.balance, size);
  EXPECT_EQ(result.sums.z, 2 * size);
  EXPECT_EQ(result.sums.squared_gradient_norm, size * size * 0.5);
  EXPECT_EQ(result.sums.spilled_bytes, 5.0 * size * (size - 1));
  EXPECT_EQ(result.maxima.max_rows, 7);
  EXPECT_EQ(result.maxima.memory_bytes, 1e9 + size - 1);
  EXPECT_EQ(result.maxima.stop_signal, size > 1 ? 10 : 0);
  EXPECT_EQ(result.maxima.spill_wait_seconds, 0.5 * (size - 1));
  EXPECT_EQ(result.maxima.spill_copy_seconds, 3);
  ASSERT_EQ(std::ssize(result.computed_seconds), size);
  for (int rank = 0; rank < size; ++rank)
    EXPECT_EQ(result.computed_seconds[static_cast<std::size_t>(rank)], 0.25 * (rank + 1));
}

TEST(StepReport, WhatIsNotANumberOnOneRankIsNoneOnAll) {
  StepReport mine = report_of(world().rank());
  if (world().rank() == world().size() - 1)
    mine.sums.squared_gradient_norm = std::numeric_limits<double>::quiet_NaN();
  EXPECT_TRUE(std::isnan(gather(mine, world()).sums.squared_gradient_norm));
}

TEST(StepReport, IsOneExchange) {
  StartLog log(1);
  RecordedGroup ranks(world(), log);
  gather(report_of(world().rank()), ranks);
  ASSERT_EQ(log.starts.size(), 1u);
  EXPECT_EQ(log.starts[0].what, "all_gather_values world 11");
}

}  // namespace
}  // namespace switchyard::test
