#include "data/hdf5/fletcher32.hpp"

#include <algorithm>
#include <array>
#include <cstring>

#include "tensor/error.hpp"

namespace switchyard::hdf5 {

namespace {

constexpr std::size_t word_bytes = sizeof(std::uint16_t);
// Words side by side are summed apart, each column of them for itself: a loop for vectors.
constexpr std::size_t num_columns = 32;
constexpr std::size_t row_bytes = num_columns * word_bytes;
// After so many rows a sum of sums has at most 32 bits: 360 * 361 / 2 * 65535 < 2^32.
constexpr std::size_t most_rows = 360;

// 0 stays 0; others become 1 ... 65535.
std::uint64_t modulo(std::uint64_t sum) {
  return sum == 0 ? 0 : (sum - 1) % 65535 + 1;
}

struct Sums {
  std::uint64_t first = 0, second = 0;
};

// Column c of row r (of R) counts (R - r) num_columns - c times in `second`.
Sums sums_of_rows(const std::byte* bytes, std::size_t num_rows) {
  std::array<std::uint32_t, num_columns> column{}, columns{};
  for (std::size_t row = 0; row < num_rows; ++row) {
    std::array<std::uint16_t, num_columns> words;
    std::memcpy(words.data(), bytes + row * row_bytes, row_bytes);
    for (std::size_t c = 0; c < num_columns; ++c) {
      column[c] += words[c];
      columns[c] += column[c];
    }
  }
  Sums sums;
  for (std::size_t c = 0; c < num_columns; ++c) {
    sums.first += column[c];
    sums.second += num_columns * std::uint64_t{columns[c]} - c * std::uint64_t{column[c]};
  }
  return sums;
}

Sums sums_of_words(std::span<const std::byte> bytes) {
  Sums sums;
  for (std::size_t at = 0; at < bytes.size(); at += word_bytes) {
    std::uint16_t word = 0;
    std::memcpy(&word, &bytes[at], word_bytes);
    sums.first += word;
    sums.second += sums.first;
  }
  return sums;
}

}  // namespace

void Fletcher32::add(std::span<const std::byte> bytes) {
  expect(bytes.size() % word_bytes == 0, "whole words of 16 bits");
  while (!bytes.empty()) {
    const std::size_t num_rows = std::min(bytes.size() / row_bytes, most_rows);
    const auto block = bytes.first(num_rows > 0 ? num_rows * row_bytes : bytes.size());
    const Sums sums = num_rows > 0 ? sums_of_rows(block.data(), num_rows) : sums_of_words(block);
    Fletcher32 next;
    next.num_words_ = block.size() / word_bytes;
    next.first_ = modulo(sums.first);
    next.second_ = modulo(sums.second);
    add(next);
    bytes = bytes.subspan(block.size());
  }
}

void Fletcher32::add(const Fletcher32& next) {
  second_ = modulo(second_ + modulo(next.num_words_) * first_ + next.second_);
  first_ = modulo(first_ + next.first_);
  num_words_ += next.num_words_;
}

std::uint32_t Fletcher32::value() const {
  return static_cast<std::uint32_t>(modulo(256 * second_) << 16 | modulo(256 * first_));
}

}  // namespace switchyard::hdf5
