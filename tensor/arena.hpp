// Where in a range of addresses allocations lie: best fit, the lowest of equals, neighbours that
// are given back join. Offsets alone, no memory: so that what a device does with real memory, the
// plan of that device repeats exactly.
#pragma once

#include <cstdint>
#include <map>

namespace switchyard {

class Arena {
 public:
  // Every size is rounded up to the granularity, which offsets are multiples of.
  explicit Arena(std::int64_t granularity) : granularity_(granularity) {}

  // The offset of `bytes` (above 0) bytes that nobody else has.
  std::int64_t take(std::int64_t bytes);
  // What take(bytes) gave, with the same size.
  void give_back(std::int64_t offset, std::int64_t bytes);

  std::int64_t in_use() const { return in_use_; }
  // The most that take() has reached: bytes of memory that suffice for all that happened.
  std::int64_t high_water() const { return high_water_; }
  // The offset that take(bytes) would give, without taking it.
  std::int64_t next(std::int64_t bytes) const;

 private:
  using Free = std::map<std::int64_t, std::int64_t>;  // offset -> bytes
  std::int64_t rounded(std::int64_t bytes) const;
  Free::const_iterator best_fit(std::int64_t bytes) const;  // end() if none fits

  std::int64_t granularity_;
  Free free_;             // below end_
  std::int64_t end_ = 0;  // from here on all is free
  std::int64_t in_use_ = 0;
  std::int64_t high_water_ = 0;
};

}  // namespace switchyard
