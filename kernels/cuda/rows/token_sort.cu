#include "kernels/cuda/rows/token_sort.cuh"

#include "kernels/cuda/runs.cuh"

namespace switchyard::kernels::cuda {

namespace {

constexpr int threads = 256;
constexpr int num_warps = threads / 32;
constexpr int most_digits = 1 << TokenSort::most_digit_bits;
static_assert(most_digits == threads);  // one thread a digit
constexpr int rounds = TokenSort::tokens_per_block / threads;
constexpr unsigned all_lanes = 0xffffffffu;

struct Pass {
  const std::int32_t* keys;
  const std::int32_t* places;  // null: each token is where it was
  std::int32_t* sorted_keys;
  std::int32_t* sorted_places;
  std::int32_t* counts;  // [digits, blocks]
  std::int64_t num_tokens;
  std::int64_t num_blocks;
  int shift;
  int num_digits;

  __device__ int digit_of(std::int32_t key) const { return key >> shift & (num_digits - 1); }
};

__global__ void __launch_bounds__(threads) count_kernel(Pass pass, std::int64_t table_rows) {
  __shared__ std::int32_t counts[most_digits];
  counts[threadIdx.x] = 0;
  __syncthreads();
  const std::int64_t begin = blockIdx.x * TokenSort::tokens_per_block;
  for (int round = 0; round < rounds; ++round) {
    const std::int64_t i = begin + round * threads + threadIdx.x;
    if (i >= pass.num_tokens) break;
    const std::int32_t key = pass.keys[i];
    expect_on_card(0 <= key && key < table_rows, "tokens within the table");
    atomicAdd(&counts[pass.digit_of(key)], 1);
  }
  __syncthreads();
  if (threadIdx.x < pass.num_digits)
    pass.counts[threadIdx.x * pass.num_blocks + blockIdx.x] = counts[threadIdx.x];
}

// Each count becomes the sum of those before it: where the block's first token of the digit goes.
// One block, of which each thread has a stretch of neighbours.
constexpr int scan_threads = 1024;

__global__ void __launch_bounds__(scan_threads)
    scan_kernel(std::int32_t* counts, std::int64_t num_counts) {
  __shared__ std::int32_t of_warp[scan_threads / 32];
  const std::int64_t stretch = (num_counts + scan_threads - 1) / scan_threads;
  const std::int64_t begin = min(threadIdx.x * stretch, num_counts);
  const std::int64_t end = min(begin + stretch, num_counts);
  std::int32_t mine = 0;
  for (std::int64_t i = begin; i < end; ++i) mine += counts[i];

  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  std::int32_t up_to = mine;  // and with this thread, in the warp
  for (int distance = 1; distance < 32; distance *= 2) {
    const std::int32_t before = __shfl_up_sync(all_lanes, up_to, distance);
    if (lane >= distance) up_to += before;
  }
  if (lane == 31) of_warp[warp] = up_to;
  __syncthreads();
  std::int32_t running = up_to - mine;
  for (int other = 0; other < warp; ++other) running += of_warp[other];
  for (std::int64_t i = begin; i < end; ++i) {
    const std::int32_t count = counts[i];
    counts[i] = running;
    running += count;
  }
}

// The places of a block's tokens follow from where the block's first of each digit goes, the tokens
// of the digit in the warps before, in the rounds before and in the lanes before.
__global__ void __launch_bounds__(threads) scatter_kernel(Pass pass) {
  __shared__ std::int32_t next[num_warps][most_digits];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  for (int i = threadIdx.x; i < num_warps * most_digits; i += threads)
    next[i / most_digits][i % most_digits] = 0;
  __syncthreads();
  const std::int64_t begin =
      blockIdx.x * TokenSort::tokens_per_block + std::int64_t{warp} * rounds * 32 + lane;
  // Calls each(i, key, digit, lanes of the warp that have the digit) round by round.
  const auto for_each_token = [&](auto each) {
    for (int round = 0; round < rounds; ++round) {
      const std::int64_t i = begin + round * 32;
      const bool exists = i < pass.num_tokens;
      const std::int32_t key = exists ? pass.keys[i] : 0;
      const int digit = exists ? pass.digit_of(key) : -1;
      const unsigned alike = __match_any_sync(all_lanes, digit);
      if (exists) each(i, key, digit, alike);
      __syncwarp();  // what each() read, before the first of the lanes counts
      if (exists && (alike & ((1u << lane) - 1)) == 0) next[warp][digit] += __popc(alike);
      __syncwarp();
    }
  };
  for_each_token([](std::int64_t, std::int32_t, int, unsigned) {});
  __syncthreads();
  if (threadIdx.x < pass.num_digits) {
    std::int32_t running = pass.counts[threadIdx.x * pass.num_blocks + blockIdx.x];
    for (int w = 0; w < num_warps; ++w) {
      const std::int32_t count = next[w][threadIdx.x];
      next[w][threadIdx.x] = running;
      running += count;
    }
  }
  __syncthreads();
  for_each_token([&](std::int64_t i, std::int32_t key, int digit, unsigned alike) {
    const std::int32_t to = next[warp][digit] + __popc(alike & ((1u << lane) - 1));
    pass.sorted_keys[to] = key;
    pass.sorted_places[to] = pass.places == nullptr ? static_cast<std::int32_t>(i) : pass.places[i];
  });
}

}  // namespace

SortedTokens sort_tokens(const TokenSort& sort, const std::int32_t* tokens, std::int64_t table_rows,
                         std::byte* scratch, cudaStream_t stream) {
  std::int32_t* const arrays = reinterpret_cast<std::int32_t*>(scratch);
  const std::int64_t n = sort.num_tokens;
  Pass pass{.keys = tokens,
            .places = nullptr,
            .sorted_keys = nullptr,
            .sorted_places = nullptr,
            .counts = arrays + 4 * n,
            .num_tokens = n,
            .num_blocks = sort.num_blocks,
            .shift = 0,
            .num_digits = 1 << sort.digit_bits};
  const unsigned blocks = num_blocks(sort.num_blocks, 1);
  for (int i = 0; i < sort.num_passes; ++i) {
    std::int32_t* const to = arrays + (i % 2) * 2 * n;
    pass.sorted_keys = to;
    pass.sorted_places = to + n;
    pass.shift = i * sort.digit_bits;
    count_kernel<<<blocks, threads, 0, stream>>>(pass, table_rows);
    scan_kernel<<<1, scan_threads, 0, stream>>>(pass.counts, sort.num_counts());
    scatter_kernel<<<blocks, threads, 0, stream>>>(pass);
    check_launch();
    pass.keys = pass.sorted_keys;
    pass.places = pass.sorted_places;
  }
  return {pass.keys, pass.places};
}

}  // namespace switchyard::kernels::cuda
