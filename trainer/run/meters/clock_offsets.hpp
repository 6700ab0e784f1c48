// How far the clocks of the ranks are apart, for times of all ranks on one axis. A barrier tells:
// nobody leaves it before all have entered. So what rank r calls its leaving is later than what
// rank 0 calls its entering, and the other way round; many barriers make the bounds tight. Ranks of
// one host have one clock.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "parallel/group/group.hpp"

namespace switchyard {

struct ClockOffset {
  std::int64_t nanoseconds = 0;  // a rank's clock less that of rank 0
  std::int64_t uncertainty = 0;  // it is right to this
};

// When a rank entered and left a barrier, by its own clock.
struct BarrierTimes {
  std::int64_t entered = 0;
  std::int64_t left = 0;
};

// From the same barriers, as rank 0 and another rank saw them; at least one.
ClockOffset offset_from(std::span<const BarrierTimes> first, std::span<const BarrierTimes> other);

// Of all ranks, the same on each. Collective. `clock`: nanoseconds of this rank.
std::vector<ClockOffset> measure_clock_offsets(Group& world,
                                               const std::function<std::int64_t()>& clock);
// The same for the clocks of the hosts: those of rank 0's host are 0 exactly.
std::vector<ClockOffset> host_clock_offsets(Group& world);

}  // namespace switchyard
