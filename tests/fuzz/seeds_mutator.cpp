// Lets libFuzzer begin from a target's own seeds, without a folder of them: an empty input becomes
// one, all others are mutated as ever.
#include <algorithm>

#include "tests/fuzz/fuzz_target.hpp"

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                               std::size_t max_size, unsigned seed) {
  static const std::vector<std::string> seeds = switchyard::fuzz::seeds();
  if (size > 1) return LLVMFuzzerMutate(data, size, max_size);
  const std::string& chosen = seeds[seed % seeds.size()];
  const std::size_t length = std::min(chosen.size(), max_size);
  std::copy_n(chosen.begin(), length, data);
  return length;
}
