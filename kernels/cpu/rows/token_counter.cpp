#include "kernels/cpu/rows/token_counter.hpp"

#include "tensor/error.hpp"

namespace switchyard::kernels::cpu {

namespace {

std::uint32_t low_word(std::int64_t value) {
  return static_cast<std::uint32_t>(value);
}

}  // namespace

TokenCounters::TokenCounters(const DropoutSite& site, const TensorView& sequence_ids,
                             std::int64_t cols)
    : site_(site),
      ids_(sequence_ids.as<std::int64_t>()),
      positions_(site.positions.as<std::int32_t>()) {
  expect(0 <= site.step && site.step < (std::int64_t{1} << 32), "a step below 2^32");
  expect(site.copies <= 1 << (32 - dropout_group_bits), "at most 256 copies of a token");
  expect(cols <= std::int64_t{4} << dropout_group_bits, "at most 2^26 elements in a row");
  for (std::int64_t id : sequence_ids.span<std::int64_t>())
    expect(0 <= id && id < dropout_sequence_limit, "sequence ids in [0, 2^40)");
  for (std::int32_t position : site.positions.span<std::int32_t>())
    expect(0 <= position && position < 1 << dropout_position_bits, "positions in [0, 2^24)");
}

std::array<std::uint32_t, 4> TokenCounters::words(std::int64_t row, std::int64_t group) const {
  const std::int64_t token = row / site_.copies, copy = row % site_.copies;
  const std::int64_t sequence = ids_[token / site_.sequence_length];
  return random_words(
      site_.key, {low_word(site_.step), low_word(sequence),
                  low_word(positions_[token]) | low_word(sequence >> 32) << dropout_position_bits,
                  low_word(group) | low_word(copy) << dropout_group_bits});
}

}  // namespace switchyard::kernels::cpu
