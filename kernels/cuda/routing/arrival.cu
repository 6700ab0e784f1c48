#include "kernels/cuda/routing/arrival.hpp"

#include <algorithm>

#include "kernels/cuda/sums/integer_sums.cuh"
#include "tensor/error.hpp"

namespace switchyard::kernels::cuda {

namespace {

constexpr int threads = 256;
constexpr std::int64_t most_blocks = 8192;

struct Arrivals {
  const std::int32_t* counts = nullptr;  // [sources, experts]
  std::int64_t num_sources = 0;
  std::int64_t num_experts = 0;
  const std::int32_t* numbers = nullptr;  // null: no sources share sequences
  SharingSources sharing;
  std::int64_t num_rows = 0;
};

// The sources that share sequences with one: first ... first + size - 1.
struct Members {
  std::int64_t first = 0;
  std::int64_t size = 1;
};
__device__ Members members_of(const Arrivals& arrivals, std::int64_t source) {
  const SharingSources& sharing = arrivals.sharing;
  const std::int64_t begin = (sharing.first + source) / sharing.size * sharing.size - sharing.first;
  const std::int64_t end = min(begin + sharing.size, arrivals.num_sources);
  const std::int64_t first = max(begin, std::int64_t{0});
  return {first, end - first};
}

// Sums of counts that the block of a cell (source, expert) needs.
struct Begins {
  std::int32_t arrived = 0;  // rows that arrived before those of the cell
  std::int32_t members = 0;  // rows that arrived before the first member's of this expert
  std::int32_t ordered = 0;  // rows in the new order before those of the members and this expert
};

// All threads must call. Counts that are not the rows stop the kernel.
__device__ Begins begins_of(const Arrivals& arrivals, std::int64_t cell,
                            std::int64_t first_member) {
  const std::int64_t experts = arrivals.num_experts;
  const std::int64_t expert = cell % experts;
  Begins begins;
  std::int32_t total = 0;
  for (std::int64_t i = threadIdx.x; i < arrivals.num_sources * experts; i += threads) {
    const std::int32_t count = arrivals.counts[i];
    expect_on_card(count >= 0, "counts that are not negative");
    const std::int64_t e = i % experts;
    if (i < cell) begins.arrived += count;
    if (i < first_member * experts + expert) begins.members += count;
    if (e < expert || (e == expert && i < first_member * experts)) begins.ordered += count;
    total += count;
  }
  begins.arrived = block_exclusive_sum(begins.arrived).total;
  begins.members = block_exclusive_sum(begins.members).total;
  begins.ordered = block_exclusive_sum(begins.ordered).total;
  expect_on_card(block_exclusive_sum(total).total == arrivals.num_rows,
                 "counts that add up to the rows that arrived");
  return begins;
}

// Where each member's rows of the expert begin among those that arrived. All threads must call.
__device__ void fill_member_begins(const Arrivals& arrivals, const Members& members,
                                   std::int64_t expert, std::int32_t begin_of_first,
                                   std::int32_t* begins) {
  if (threadIdx.x == 0) begins[0] = begin_of_first;
  for (std::int64_t m = threadIdx.x + 1; m < members.size; m += threads) {
    const std::int64_t end = (members.first + m) * arrivals.num_experts + expert;
    std::int32_t rows = 0;  // from the begin of the member before
    for (std::int64_t i = end - arrivals.num_experts; i < end; ++i) rows += arrivals.counts[i];
    begins[m] = rows;
  }
  __syncthreads();
  if (threadIdx.x == 0)
    for (std::int64_t m = 1; m < members.size; ++m) begins[m] += begins[m - 1];
  __syncthreads();
}

// How many of the ascending numbers are below `number`, or equal to it where these count.
__device__ std::int32_t count_below(const std::int32_t* numbers, std::int32_t count,
                                    std::int32_t number, bool equal_ones_count) {
  std::int32_t low = 0;
  while (low < count) {
    const std::int32_t middle = low + (count - low) / 2;
    const bool is_below =
        numbers[middle] < number || (equal_ones_count && numbers[middle] == number);
    if (is_below)
      low = middle + 1;
    else
      count = middle;
  }
  return low;
}

// A cell has `pieces` blocks, which take its rows in turn.
__global__ void arrival_kernel(Arrivals arrivals, std::int64_t pieces,
                               std::int32_t* arrival_of_row) {
  extern __shared__ std::int32_t member_begins[];
  const std::int64_t cell = blockIdx.x / pieces;
  const std::int64_t piece = blockIdx.x % pieces;
  const std::int64_t source = cell / arrivals.num_experts;
  const std::int64_t expert = cell % arrivals.num_experts;
  const Members members = members_of(arrivals, source);
  const Begins begins = begins_of(arrivals, cell, members.first);
  const std::int32_t count = arrivals.counts[cell];
  const std::int64_t step = pieces * threads;
  if (arrivals.numbers == nullptr) {
    for (std::int64_t i = piece * threads + threadIdx.x; i < count; i += step)
      arrival_of_row[begins.ordered + i] = static_cast<std::int32_t>(begins.arrived + i);
    return;
  }
  fill_member_begins(arrivals, members, expert, begins.members, member_begins);
  for (std::int64_t i = piece * threads + threadIdx.x; i < count; i += step) {
    const std::int32_t number = arrivals.numbers[begins.arrived + i];
    std::int64_t rank = i;
    for (std::int64_t m = 0; m < members.size; ++m) {
      const std::int64_t other = members.first + m;
      if (other == source) continue;
      rank += count_below(arrivals.numbers + member_begins[m],
                          arrivals.counts[other * arrivals.num_experts + expert], number,
                          other < source);
    }
    arrival_of_row[begins.ordered + rank] = static_cast<std::int32_t>(begins.arrived + i);
  }
}

}  // namespace

void arrival_order(const TensorView& counts, const TensorView& numbers,
                   const SharingSources& sharing, const TensorView& arrival_of_row) {
  const std::int64_t cells = counts.numel();
  const std::int64_t num_rows = arrival_of_row.numel();
  expect(cells > 0, "counts that add up to the rows that arrived");
  const Arrivals arrivals{.counts = pointer<std::int32_t>(counts),
                          .num_sources = counts.rows(),
                          .num_experts = counts.cols(),
                          .numbers = sharing.size > 1 ? pointer<std::int32_t>(numbers) : nullptr,
                          .sharing = sharing,
                          .num_rows = num_rows};
  const std::int64_t pieces = std::clamp<std::int64_t>(
      most_blocks / cells, 1, (num_rows + 4 * threads - 1) / (4 * threads));
  const std::int64_t most_members = std::min(sharing.size, counts.rows());
  arrival_kernel<<<static_cast<unsigned>(cells * pieces), threads,
                   static_cast<std::size_t>(most_members) * sizeof(std::int32_t),
                   stream_of(arrival_of_row)>>>(arrivals, pieces,
                                                pointer<std::int32_t>(arrival_of_row));
  check_launch();
}

}  // namespace switchyard::kernels::cuda
