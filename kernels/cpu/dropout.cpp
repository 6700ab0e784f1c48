#include "kernels/cpu/dropout.hpp"

#include <array>

#include "kernels/cpu/parallel.hpp"
#include "kernels/dropout_counter.hpp"
#include "tensor/error.hpp"

namespace switchyard::kernels::cpu {

namespace {

std::uint32_t low_word(std::int64_t value) {
  return static_cast<std::uint32_t>(value);
}

// See dropout_counter.hpp.
std::array<std::uint32_t, 4> counter_of(std::int64_t step, std::int64_t sequence,
                                        std::int64_t position, std::int64_t copy,
                                        std::int64_t group) {
  return {low_word(step), low_word(sequence),
          low_word(position) | low_word(sequence >> 32) << dropout_position_bits,
          low_word(group) | low_word(copy) << dropout_group_bits};
}

void check_ranges(const TensorView& x, const DropoutSite& site, const TensorView& sequence_ids) {
  expect(0 <= site.step && site.step < (std::int64_t{1} << 32), "a step below 2^32");
  expect(site.copies <= 1 << (32 - dropout_group_bits), "at most 256 copies of a token");
  expect(x.cols() <= std::int64_t{4} << dropout_group_bits, "at most 2^26 elements in a row");
  for (std::int64_t id : sequence_ids.span<std::int64_t>())
    expect(0 <= id && id < dropout_sequence_limit, "sequence ids in [0, 2^40)");
  for (std::int32_t position : site.positions.span<std::int32_t>())
    expect(0 <= position && position < 1 << dropout_position_bits, "positions in [0, 2^24)");
}

float as_float(float value) {
  return value;
}
float as_float(BFloat16 value) {
  return to_float(value);
}
void assign(float& to, float value) {
  to = value;
}
void assign(BFloat16& to, float value) {
  to = to_bf16(value);
}

template <class T>
void drop(const TensorView& x, float rate, const DropoutSite& site,
          const TensorView& sequence_ids) {
  const Rows<T> rows = rows_of<T>(x);
  const std::int64_t* ids = sequence_ids.as<std::int64_t>();
  const std::int32_t* positions = site.positions.as<std::int32_t>();
  const float kept_scale = 1.0f / (1.0f - rate);
  const std::int64_t cols = x.cols();
  parallel_rows(x.rows(), cols, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const std::int64_t token = r / site.copies;
      const std::int64_t sequence = ids[token / site.sequence_length];
      const std::int64_t position = positions[token];
      for (std::int64_t h = 0; h < cols; h += 4) {
        const auto words = random_words(
            site.key, counter_of(site.step, sequence, position, r % site.copies, h / 4));
        for (std::int64_t i = h; i < std::min(h + 4, cols); ++i) {
          const bool kept = uniform(words[static_cast<std::size_t>(i - h)]) >= rate;
          T& element = rows[r][i];
          assign(element, kept ? as_float(element) * kept_scale : 0.0f);
        }
      }
    }
  });
}

}  // namespace

void dropout(const TensorView& x, float rate, const DropoutSite& site,
             const TensorView& sequence_ids) {
  check_ranges(x, site, sequence_ids);
  if (x.dtype == DType::f32) return drop<float>(x, rate, site, sequence_ids);
  drop<BFloat16>(x, rate, site, sequence_ids);
}

}  // namespace switchyard::kernels::cpu
