// The clocks of ranks are compared by when each enters and leaves the same barriers.
#include "trainer/run/meters/clock_offsets.hpp"

#include <gtest/gtest.h>

#include "parallel/group/collective_log.hpp"
#include "tests/support/mpi_test.hpp"

namespace switchyard::test {
namespace {

TEST(ClockOffsets, AreBoundedByEveryBarrier) {
  // Nobody leaves before the other has entered: 30 - 12 and 45 - 10 bound the other's clock, then
  // 125 - 103 and 130 - 101.
  const std::vector<BarrierTimes> first = {{10, 12}, {101, 103}};
  const std::vector<BarrierTimes> other = {{30, 45}, {125, 130}};
  const ClockOffset offset = offset_from(first, other);
  EXPECT_EQ(offset.nanoseconds, (22 + 29) / 2);
  EXPECT_EQ(offset.uncertainty, 4);
}

TEST(ClockOffsets, ClocksThatAreSetApartAreFound) {
  const std::int64_t apart = 3'600'000'000'000;  // an hour a rank
  const std::vector<ClockOffset> offsets =
      measure_clock_offsets(world(), [&] { return system_nanoseconds() - apart * world().rank(); });
  ASSERT_EQ(offsets.size(), static_cast<std::size_t>(world().size()));
  for (std::size_t rank = 0; rank < offsets.size(); ++rank) {
    const std::int64_t error = offsets[rank].nanoseconds + apart * static_cast<std::int64_t>(rank);
    EXPECT_LE(std::abs(error), offsets[rank].uncertainty) << rank;
    EXPECT_LT(offsets[rank].uncertainty, 1'000'000'000) << rank;
  }
}

TEST(ClockOffsets, RanksOfOneHostHaveOneClock) {
  for (const ClockOffset& offset : host_clock_offsets(world())) {
    EXPECT_EQ(offset.nanoseconds, 0);
    EXPECT_EQ(offset.uncertainty, 0);
  }
}

}  // namespace
}  // namespace switchyard::test
