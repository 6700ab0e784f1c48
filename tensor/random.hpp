// Counter-based random numbers (Philox4x32-10: Salmon et al., "Parallel random numbers: as easy as
// 1, 2, 3", SC 2011; through the Random123 library). A number is a pure function of a key (seed,
// stream) and a counter (the identity of what it is for), so it does not depend on which rank asks,
// nor in which order.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace switchyard {

struct RandomKey {
  std::uint32_t seed = 0;
  std::uint32_t stream = 0;  // what the numbers are for; see stream_of()
};

// A key from a run's seed and the name of a purpose, such as "init layers.0.router.weight".
RandomKey random_key(std::uint64_t seed, std::string_view purpose);

// Four independent 32-bit words for one counter.
std::array<std::uint32_t, 4> random_words(RandomKey key, std::array<std::uint32_t, 4> counter);
std::array<std::uint32_t, 4> random_words(RandomKey key, std::uint64_t low, std::uint64_t high);

// In [0, 1), 24 bits.
inline float uniform(std::uint32_t word) {
  return static_cast<float>(word >> 8) * 0x1p-24f;
}

// Four standard normal numbers from four words (Box and Muller).
std::array<float, 4> normals(const std::array<std::uint32_t, 4>& words);

}  // namespace switchyard
