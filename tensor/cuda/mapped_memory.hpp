// Ranges of a card's addresses to which memory is mapped from the front as it is needed (CUDA
// driver API, "Virtual Memory Management"). The driver's functions are looked up at run time, so
// that a program built with the toolkit starts on machines without a driver.
#pragma once

#include <cuda.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

namespace switchyard::cuda {

class MappedMemory {
 public:
  explicit MappedMemory(int card);
  ~MappedMemory();
  MappedMemory(const MappedMemory&) = delete;
  MappedMemory& operator=(const MappedMemory&) = delete;

  // Addresses for max_bytes, none of them usable yet. MemoryError if the driver refuses.
  std::byte* reserve(std::int64_t max_bytes);
  // Makes at least the first `bytes` of a range usable. Returns the bytes that were mapped anew,
  // whose contents are undefined: [before, after). MemoryError if the card has no more.
  struct Grown {
    std::int64_t before = 0;
    std::int64_t after = 0;
  };
  Grown grow(std::byte* range, std::int64_t bytes);
  // Nothing may use the range any more.
  void release(std::byte* range) noexcept;

  // Memory of the card that all ranges hold.
  std::int64_t mapped_bytes() const { return mapped_bytes_; }

 private:
  struct Driver;
  struct Chunk {
    CUmemGenericAllocationHandle handle = 0;
    std::int64_t bytes = 0;
  };
  struct Range {
    std::int64_t max_bytes = 0;
    std::int64_t mapped = 0;
    std::vector<Chunk> chunks;
  };

  std::int64_t rounded(std::int64_t bytes) const;
  void unmap(std::byte* address, const Range& range) noexcept;

  const Driver& driver_;
  CUmemAllocationProp properties_{};
  std::int64_t granularity_ = 0;
  std::int64_t mapped_bytes_ = 0;
  std::map<std::byte*, Range> ranges_;
};

}  // namespace switchyard::cuda
