#include "tensor/arena.hpp"

#include <algorithm>
#include <iterator>

#include "tensor/error.hpp"

namespace switchyard {

std::int64_t Arena::rounded(std::int64_t bytes) const {
  expect(bytes > 0, "at least one byte of an arena");
  return (bytes + granularity_ - 1) / granularity_ * granularity_;
}

Arena::Free::const_iterator Arena::best_fit(std::int64_t bytes) const {
  auto best = free_.end();
  for (auto hole = free_.begin(); hole != free_.end(); ++hole)
    if (hole->second >= bytes && (best == free_.end() || hole->second < best->second)) best = hole;
  return best;
}

std::int64_t Arena::next(std::int64_t bytes) const {
  const auto hole = best_fit(rounded(bytes));
  return hole != free_.end() ? hole->first : end_;
}

std::int64_t Arena::take(std::int64_t bytes) {
  const std::int64_t size = rounded(bytes);
  in_use_ += size;
  const auto hole = best_fit(size);
  if (hole == free_.end()) {
    const std::int64_t offset = end_;
    end_ += size;
    high_water_ = std::max(high_water_, end_);
    return offset;
  }
  const auto [offset, hole_bytes] = *hole;
  free_.erase(hole);
  if (hole_bytes > size) free_.emplace(offset + size, hole_bytes - size);
  return offset;
}

void Arena::give_back(std::int64_t offset, std::int64_t bytes) {
  std::int64_t size = rounded(bytes);
  expect(offset >= 0 && offset + size <= end_, "what this arena gave");
  in_use_ -= size;
  auto after = free_.lower_bound(offset);
  expect(after == free_.end() || after->first >= offset + size, "what was not given back before");
  if (after != free_.end() && after->first == offset + size) {
    size += after->second;
    after = free_.erase(after);
  }
  if (after != free_.begin()) {
    const auto before = std::prev(after);
    expect(before->first + before->second <= offset, "what was not given back before");
    if (before->first + before->second == offset) {
      offset = before->first;
      size += before->second;
      free_.erase(before);
    }
  }
  if (offset + size == end_)
    end_ = offset;
  else
    free_.emplace(offset, size);
}

}  // namespace switchyard
