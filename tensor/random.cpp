#include "tensor/random.hpp"

#include <Random123/philox.h>

#include <cmath>
#include <numbers>

namespace switchyard {

namespace {

// FNV-1a, 64 bits: a fixed, public hash, so that streams never depend on the standard library.
std::uint64_t hash_of(std::uint64_t start, std::string_view text) {
  std::uint64_t hash = 0xcbf29ce484222325ull ^ start;
  for (char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ull;
  return hash;
}

}  // namespace

RandomKey random_key(std::uint64_t seed, std::string_view purpose) {
  const std::uint64_t hash = hash_of(seed * 0x9e3779b97f4a7c15ull, purpose);
  return {static_cast<std::uint32_t>(hash), static_cast<std::uint32_t>(hash >> 32)};
}

std::array<std::uint32_t, 4> random_words(RandomKey key, std::array<std::uint32_t, 4> counter) {
  const r123::Philox4x32::ctr_type in = {{counter[0], counter[1], counter[2], counter[3]}};
  const r123::Philox4x32::key_type k = {{key.seed, key.stream}};
  const r123::Philox4x32::ctr_type out = r123::Philox4x32()(in, k);
  return {out[0], out[1], out[2], out[3]};
}

std::array<std::uint32_t, 4> random_words(RandomKey key, std::uint64_t low, std::uint64_t high) {
  return random_words(key,
                      {static_cast<std::uint32_t>(low), static_cast<std::uint32_t>(low >> 32),
                       static_cast<std::uint32_t>(high), static_cast<std::uint32_t>(high >> 32)});
}

std::array<float, 4> normals(const std::array<std::uint32_t, 4>& words) {
  std::array<float, 4> result{};
  for (std::size_t i = 0; i < 4; i += 2) {
    // (0, 1] for the logarithm.
    const double radius = std::sqrt(-2.0 * std::log((words[i] + 1.0) * 0x1p-32));
    const double angle = 2.0 * std::numbers::pi * (words[i + 1] * 0x1p-32);
    result[i] = static_cast<float>(radius * std::cos(angle));
    result[i + 1] = static_cast<float>(radius * std::sin(angle));
  }
  return result;
}

}  // namespace switchyard
