#include "kernels/cpu/group_offsets.hpp"

#include <algorithm>
#include <limits>
#include <numeric>

#include "tensor/error.hpp"

namespace switchyard::kernels::cpu {

void group_offsets(const TensorView& counts, const TensorView& offsets) {
  const std::span<const std::int32_t> numbers = counts.span<std::int32_t>();
  const std::span<std::int32_t> sums = offsets.span<std::int32_t>();
  expect(std::ranges::all_of(numbers, [](std::int32_t count) { return count >= 0; }) &&
             std::accumulate(numbers.begin(), numbers.end(), std::int64_t{0}) <=
                 std::numeric_limits<std::int32_t>::max(),
         "counts that are not negative, with a sum below 2^31");
  std::ranges::fill(sums, 0);
  const std::span<std::int32_t> ends = sums.subspan(1);
  for (std::size_t i = 0; i < numbers.size(); ++i) ends[i % ends.size()] += numbers[i];
  std::inclusive_scan(ends.begin(), ends.end(), ends.begin());
}

}  // namespace switchyard::kernels::cpu
