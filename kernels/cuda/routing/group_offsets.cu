#include "kernels/cuda/routing/group_offsets.hpp"

#include "kernels/cuda/sums/integer_sums.cuh"

namespace switchyard::kernels::cuda {

namespace {

constexpr int threads = 256;

// One block, which takes as many groups at a time as it has threads. Counts that are none stop the
// kernel.
__global__ void offsets_kernel(const std::int32_t* counts, std::int64_t num_sources,
                               std::int64_t num_groups, std::int32_t* offsets) {
  std::int32_t sum = 0;
  double of_thread = 0;  // exact, so that a sum beyond 31 bits shows
  for (std::int64_t first = 0; first < num_groups; first += threads) {
    const std::int64_t group = first + threadIdx.x;
    std::int32_t of_group = 0;
    if (group < num_groups) {
#pragma unroll 4
      for (std::int64_t source = 0; source < num_sources; ++source) {
        const std::int32_t count = counts[source * num_groups + group];
        expect_on_card(count >= 0, "counts that are not negative");
        of_group += count;
        of_thread += count;
      }
    }
    const BlockSum of_block = block_exclusive_sum(of_group);
    if (group < num_groups) offsets[group] = sum + of_block.before;
    sum += of_block.total;
  }
  expect_on_card(block_sum<threads>(of_thread) < 0x1p31, "counts with a sum below 2^31");
  if (threadIdx.x == 0) offsets[num_groups] = sum;
}

}  // namespace

void group_offsets(const TensorView& counts, const TensorView& offsets) {
  const std::int64_t num_groups = offsets.numel() - 1;
  const std::int64_t num_sources = counts.empty() ? 0 : counts.numel() / num_groups;
  offsets_kernel<<<1, threads, 0, stream_of(offsets)>>>(pointer_or_null<std::int32_t>(counts),
                                                        num_sources, num_groups,
                                                        pointer<std::int32_t>(offsets));
  check_launch();
}

}  // namespace switchyard::kernels::cuda
