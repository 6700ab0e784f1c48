#include "kernels/cpu/routing/arrival.hpp"

#include <algorithm>
#include <numeric>
#include <vector>

#include "tensor/error.hpp"

namespace switchyard::kernels::cpu {

namespace {

// Where the rows of each source begin.
std::vector<std::int32_t> begins_of_sources(const TensorView& counts, std::int64_t num_rows) {
  std::vector<std::int32_t> begins;
  std::int64_t begin = 0;
  bool legal = true;
  for (std::int64_t source = 0; source < counts.rows(); ++source) {
    begins.push_back(static_cast<std::int32_t>(begin));
    const std::int32_t* of_source = counts.row<std::int32_t>(source);
    for (std::int64_t e = 0; e < counts.cols(); ++e) {
      legal &= of_source[e] >= 0;
      begin += of_source[e];
    }
  }
  expect(legal && begin == num_rows, "counts that add up to the rows that arrived");
  return begins;
}

}  // namespace

void arrival_order(const TensorView& counts, const TensorView& numbers,
                   const SharingSources& sharing, const TensorView& arrival_of_row) {
  std::vector<std::int32_t> next = begins_of_sources(counts, arrival_of_row.numel());
  const std::int32_t* number = sharing.size > 1 ? numbers.as<std::int32_t>() : nullptr;
  std::int32_t* end = arrival_of_row.as<std::int32_t>();
  for (std::int64_t e = 0; e < counts.cols(); ++e) {
    std::int32_t* shared = end;  // rows of the sources that share sequences with the next one
    for (std::int64_t p = 0; p < counts.rows(); ++p) {
      std::int32_t* const begin = end;
      std::int32_t& arrived = next[static_cast<std::size_t>(p)];
      end += counts.row<std::int32_t>(p)[e];
      std::iota(begin, end, arrived);
      arrived += static_cast<std::int32_t>(end - begin);
      if ((sharing.first + p) % sharing.size == 0) {
        shared = begin;
        continue;
      }
      std::inplace_merge(shared, begin, end, [number](std::int32_t a, std::int32_t b) {
        return number[a] < number[b];
      });
    }
  }
}

void arrival_order_of_padded(const TensorView& counts, std::int64_t rows_of_count,
                             const TensorView& arrival_of_row) {
  const std::span<std::int32_t> order = arrival_of_row.span<std::int32_t>();
  auto end = order.begin();
  for (std::int64_t e = 0; e < counts.cols(); ++e)
    for (std::int64_t p = 0; p < counts.rows(); ++p) {
      const std::int32_t count = counts.row<std::int32_t>(p)[e];
      expect(0 <= count && count <= rows_of_count, "counts within what arrives of each");
      std::iota(end, end + count,
                static_cast<std::int32_t>((p * counts.cols() + e) * rows_of_count));
      end += count;
    }
  std::fill(end, order.end(), -1);
}

}  // namespace switchyard::kernels::cpu
