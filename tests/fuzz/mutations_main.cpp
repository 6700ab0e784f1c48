// Runs a fuzz target on damaged seeds, the same ones every time:
//   NAME_mutations NUMBER [FIRST]
#include <cstdio>
#include <cstdlib>

#include "tensor/random.hpp"
#include "tests/fuzz/fuzz_target.hpp"

namespace switchyard::fuzz {
namespace {

// One change: bytes are taken out, repeated elsewhere, or overwritten by one, by a number of
// eight bytes at the ends of its range, or by a digit.
void change(std::string& input, const std::array<std::uint64_t, 4>& words) {
  if (input.empty()) input = " ";
  const std::size_t at = words[0] % input.size();
  switch (words[1] % 6) {
    case 0:
      input.erase(at, words[2] % 9);
      break;
    case 1:
      input.insert(at, input.substr(words[2] % input.size(), words[3] % 30));
      break;
    case 2: {
      constexpr std::uint64_t ends[] = {0, 1, 0x7FFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFFF, 1ULL << 63};
      const std::uint64_t number = ends[words[2] % std::size(ends)] - words[3] % 2;
      for (std::size_t i = 0; i < sizeof(number) && at + i < input.size(); ++i)
        input[at + i] = static_cast<char>(number >> 8 * i & 0xFF);
      break;
    }
    case 3:
      input[at] = static_cast<char>('0' + words[2] % 10);
      break;
    case 4:
      input.resize(at + words[2] % 9);
      break;
    default:
      input[at] = static_cast<char>(words[2]);
  }
}

int run(std::uint64_t first, std::uint64_t number) {
  const std::vector<std::string> all = seeds();
  const RandomKey key = random_key(41, "mutations");
  for (const std::string& seed : all)
    LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(seed.data()), seed.size());
  for (std::uint64_t trial = first; trial < first + number; ++trial) {
    std::string input = all[trial % all.size()];
    for (std::uint64_t i = 0; i <= trial / all.size() % 4; ++i) {
      const auto words = random_words(key, trial, i);
      change(input, {words[0], words[1], words[2], words[3]});
    }
    LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(input.data()), input.size());
  }
  std::printf("%zu seeds and %llu mutations, the first of them number %llu\n", all.size(),
              static_cast<unsigned long long>(number), static_cast<unsigned long long>(first));
  return 0;
}

}  // namespace
}  // namespace switchyard::fuzz

int main(int argc, char** argv) {
  const auto number = [&](int i, std::uint64_t fallback) {
    return argc > i ? std::strtoull(argv[i], nullptr, 10) : fallback;
  };
  return switchyard::fuzz::run(number(2, 0), number(1, 1000));
}
