#include "kernels/key_ranges.hpp"

#include <algorithm>

#include "kernels/check.hpp"

namespace switchyard::kernels {

namespace {

struct VisibleKeys {
  std::int64_t first;
  std::int64_t end;
};

VisibleKeys visible_to(const CausalMask& mask, std::int64_t query) {
  const std::int64_t position = mask.query_offset + query;
  const std::int64_t lowest =
      mask.window > 0 ? std::max<std::int64_t>(0, position - mask.window + 1) : 0;
  return {std::min(lowest, mask.key_length), std::min(position + 1, mask.key_length)};
}

}  // namespace

KeyRanges causal_ranges(const CausalMask& mask, const TensorView& first, const TensorView& end) {
  expect(mask.query_offset >= 0 && mask.window >= 0, "an offset and a window of at least 0");
  const std::int64_t rows = mask.num_sequences * mask.query_length;
  expect_vector(first, DType::i32, rows, "first: i32 [sequences * query_length]");
  expect_vector(end, DType::i32, rows, "end: i32 [sequences * query_length]");
  KeyRanges ranges{first, end, 0};
  const bool writes = rows > 0 && !first.device->is_plan();
  for (std::int64_t i = 0; i < mask.query_length; ++i) {
    const VisibleKeys keys = visible_to(mask, i);
    ranges.num_pairs += static_cast<double>((keys.end - keys.first) * mask.num_sequences);
    for (std::int64_t s = 0; writes && s < mask.num_sequences; ++s) {
      first.as<std::int32_t>()[s * mask.query_length + i] = static_cast<std::int32_t>(keys.first);
      end.as<std::int32_t>()[s * mask.query_length + i] = static_cast<std::int32_t>(keys.end);
    }
  }
  return ranges;
}

}  // namespace switchyard::kernels
