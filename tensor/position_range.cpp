#include "tensor/position_range.hpp"

#include <algorithm>

namespace switchyard {

std::int64_t num_positions(std::span<const PositionRange> ranges) {
  std::int64_t count = 0;
  for (const PositionRange& range : ranges) count += range.count;
  return count;
}

std::int64_t count_before(std::span<const PositionRange> ranges, std::int64_t position) {
  std::int64_t count = 0;
  for (const PositionRange& range : ranges)
    count += std::clamp<std::int64_t>(position - range.begin, 0, range.count);
  return count;
}

std::vector<PositionRange> slice_of(std::span<const PositionRange> ranges, std::int64_t begin,
                                    std::int64_t end) {
  std::vector<PositionRange> slice;
  std::int64_t row = 0;  // of the range's first position
  for (const PositionRange& range : ranges) {
    const std::int64_t from = std::max(begin, row);
    const std::int64_t to = std::min(end, row + range.count);
    if (from < to) slice.push_back({range.begin + from - row, to - from});
    row += range.count;
  }
  return slice;
}

std::vector<PositionRange> joined(std::vector<PositionRange> ranges) {
  std::ranges::sort(ranges, {}, &PositionRange::begin);
  std::vector<PositionRange> result;
  for (const PositionRange& range : ranges) {
    if (range.count == 0) continue;
    if (result.empty() || result.back().end() < range.begin)
      result.push_back(range);
    else
      result.back().count = std::max(result.back().end(), range.end()) - result.back().begin;
  }
  return result;
}

}  // namespace switchyard
