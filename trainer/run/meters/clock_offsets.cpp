#include "trainer/run/meters/clock_offsets.hpp"

#include <algorithm>
#include <limits>

#include "parallel/group/collective_log.hpp"
#include "tensor/error.hpp"

namespace switchyard {

ClockOffset offset_from(std::span<const BarrierTimes> first, std::span<const BarrierTimes> other) {
  expect(!first.empty() && first.size() == other.size(), "the same barriers of both ranks");
  std::int64_t least = std::numeric_limits<std::int64_t>::min();
  std::int64_t most = std::numeric_limits<std::int64_t>::max();
  for (std::size_t i = 0; i < first.size(); ++i) {
    least = std::max(least, other[i].entered - first[i].left);
    most = std::min(most, other[i].left - first[i].entered);
  }
  // Clocks that run apart or were set in between cross the bounds.
  return {.nanoseconds = least + (most - least) / 2,
          .uncertainty = std::max<std::int64_t>((most - least + 1) / 2, 0)};
}

std::vector<ClockOffset> measure_clock_offsets(Group& world,
                                               const std::function<std::int64_t()>& clock) {
  constexpr std::size_t num_barriers = 32;
  constexpr std::size_t num_values = 2 * num_barriers;
  std::vector<std::int64_t> mine;
  for (std::size_t i = 0; i < num_barriers; ++i) {
    mine.push_back(clock());
    world.barrier();
    mine.push_back(clock());
  }
  std::vector<std::int64_t> all(num_values * static_cast<std::size_t>(world.size()));
  world.all_gather_values(mine, all);
  const auto times_of = [&](std::size_t rank) {
    std::vector<BarrierTimes> times;
    for (std::size_t i = 0; i < num_barriers; ++i) {
      const std::size_t at = rank * num_values + 2 * i;
      times.push_back({.entered = all[at], .left = all[at + 1]});
    }
    return times;
  };
  const std::vector<BarrierTimes> first = times_of(0);
  std::vector<ClockOffset> offsets(1);
  for (std::size_t rank = 1; rank < static_cast<std::size_t>(world.size()); ++rank)
    offsets.push_back(offset_from(first, times_of(rank)));
  return offsets;
}

std::vector<ClockOffset> host_clock_offsets(Group& world) {
  std::vector<ClockOffset> offsets(static_cast<std::size_t>(world.size()));
  if (world.topology().num_hosts() == 1) return offsets;
  offsets = measure_clock_offsets(world, system_nanoseconds);
  for (int rank = 0; rank < world.size(); ++rank)
    if (world.topology().share_host(rank, 0)) offsets[static_cast<std::size_t>(rank)] = {};
  return offsets;
}

}  // namespace switchyard
