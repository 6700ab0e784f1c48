// Ranges of positions of a sequence: what a rank holds, sees, or is brought.
#pragma once

#include <compare>
#include <cstdint>
#include <span>
#include <vector>

namespace switchyard {

// Positions begin ... begin + count - 1.
struct PositionRange {
  std::int64_t begin = 0;
  std::int64_t count = 0;
  std::int64_t end() const { return begin + count; }
  auto operator<=>(const PositionRange&) const = default;
};

// Below, `ranges` ascend and are apart. Rows hold their positions, in order.
std::int64_t num_positions(std::span<const PositionRange> ranges);
// How many of the positions lie before `position`.
std::int64_t count_before(std::span<const PositionRange> ranges, std::int64_t position);
// The positions of the rows begin ... end - 1.
std::vector<PositionRange> slice_of(std::span<const PositionRange> ranges, std::int64_t begin,
                                    std::int64_t end);
// Ascending, apart, none empty, neighbours joined. Given in any order, possibly overlapping.
std::vector<PositionRange> joined(std::vector<PositionRange> ranges);

}  // namespace switchyard
