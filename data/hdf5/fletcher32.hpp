// Fletcher's checksum, as HDF5's filter of that name stores it behind the bytes of each chunk
// (H5_checksum_fletcher32 in its H5checksum.c). The bytes are words of 16 bits, big-endian, w_1 ...
// w_n, and with sums modulo 65535, of which 0 is for words that are all 0 and 65535 for the others,
//   first = w_1 + ... + w_n    second = n w_1 + (n - 1) w_2 + ... + w_n
//   value = second * 65536 + first
// It calls no HDF5, so any thread may use it; checksums of neighbours make that of both.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace switchyard::hdf5 {

class Fletcher32 {
 public:
  // Bytes that follow those before, in whole words.
  void add(std::span<const std::byte> bytes);
  // The checksum of bytes that follow.
  void add(const Fletcher32& next);
  std::uint32_t value() const;

 private:
  // Of words as they lie in memory, little-endian: modulo 65535 a word is the other one times 256.
  std::uint64_t num_words_ = 0;
  std::uint64_t first_ = 0, second_ = 0;
};

}  // namespace switchyard::hdf5
