#include "kernels/cpu/routing/group_offsets.hpp"

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

void count_by_unit(const TensorView& indices, std::span<const std::int32_t> place_of_expert,
                   std::int64_t unit_rows, const TensorView& counts) {
  for (std::int64_t place = 0; place < counts.rows(); ++place)
    std::fill_n(counts.row<std::int32_t>(place), counts.cols(), 0);
  for (std::int64_t t = 0; t < indices.rows(); ++t)
    for (std::int64_t j = 0; j < indices.cols(); ++j) {
      const std::int32_t expert = indices.row<std::int32_t>(t)[j];
      if (expert < 0) continue;
      const std::int32_t place =
          place_of_expert.empty() ? expert : place_of_expert[static_cast<std::size_t>(expert)];
      ++counts.row<std::int32_t>(place)[t / unit_rows];
    }
}

void unit_offsets(const TensorView& counts, std::span<const std::int32_t> order,
                  const TensorView& offsets) {
  const std::span<const std::int32_t> numbers = counts.span<std::int32_t>();
  const std::int64_t num_groups = counts.shape[1], num_units = counts.shape[2];
  std::int32_t* next = offsets.as<std::int32_t>();
  std::int32_t row = 0;
  *next++ = row;
  for (std::int64_t group = 0; group < num_groups; ++group)
    for (const std::int32_t unit : order) {
      const std::int64_t source = unit / num_units;
      row += numbers[static_cast<std::size_t>((source * num_groups + group) * num_units +
                                              unit % num_units)];
      *next++ = row;
    }
}

}  // namespace switchyard::kernels::cpu
