// Copies slices of tensors on several threads: one reads while others convert and write. Few slices
// are in flight at a time, so memory is bounded by the largest slice times a small number.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <vector>

#include "data/hdf5/fletcher32.hpp"

namespace switchyard {

// Room for one, used again and again.
struct SliceBuffer {
  std::vector<float> numbers, reordered;
  std::vector<hdf5::Fletcher32> checksums;
  std::vector<std::byte> bytes;
};

class SlicesInFlight {
 public:
  // largest: bytes that the largest slice takes.
  explicit SlicesInFlight(std::int64_t largest);
  ~SlicesInFlight() = default;  // waits for what was begun

  // Room for the next slice, when there is some: the oldest slices are ended before. Throws what
  // their work threw.
  SliceBuffer& take();
  // `work` runs on another thread; `end` runs later on this one, in the order of the slices. Both
  // may use the slice that was taken last.
  void begin(std::function<void()> work, std::function<void()> end = {});
  // Ends all.
  void finish();

 private:
  struct Begun {
    std::unique_ptr<SliceBuffer> slice;
    std::function<void()> end;
    std::future<void> work;  // last: dies first, and waits
  };

  void end_oldest();

  std::size_t most_;
  std::vector<std::unique_ptr<SliceBuffer>> free_;
  std::unique_ptr<SliceBuffer> taken_;
  std::deque<Begun> begun_;
};

}  // namespace switchyard
