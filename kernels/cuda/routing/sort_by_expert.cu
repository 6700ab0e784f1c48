// The stable counting sort of slots. The slots are cut into chunks, one a warp ("worker"):
//   1. every worker counts its slots by place
//   2. for every place the counts of the workers become sums of those before, and counts[place]
//   3. every worker goes through its slots again: a slot's row is where its place begins, plus the
//      slots of that place in chunks before, plus those before it in its own chunk
//   4. the rows' tokens
// What step 2 makes lies in token_of_row until step 4, which needs it no more: a chunk has at least
// twice as many slots as there are places, so there is room, and no scratch is wanted.
#include "kernels/cuda/routing/permute.hpp"

#include <algorithm>
#include <limits>

#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/sums/integer_sums.cuh"
#include "tensor/error.hpp"

namespace switchyard::kernels::cuda {

namespace {

constexpr std::int32_t dropped = -1;

// Slots by number, in rows of k that may lie apart.
struct Slots {
  std::int32_t* data = nullptr;
  std::int64_t stride = 0;
  unsigned top_k = 1;

  __device__ std::int32_t& operator[](std::int64_t slot) const {
    if (stride == top_k) return data[slot];
    const unsigned number = static_cast<unsigned>(slot);  // slots are fewer than 2^31
    return data[number / top_k * stride + number % top_k];
  }
};
Slots slots_of(const TensorView& view) {
  return {pointer_or_null<std::int32_t>(view), view.row_stride, static_cast<unsigned>(view.cols())};
}

// How the slots are cut.
struct Chunks {
  std::int64_t num_slots = 0;
  std::int64_t length = 0;
  std::int64_t num_workers = 0;
  int num_places = 0;
};

Chunks cut(std::int64_t num_slots, std::int64_t num_places) {
  constexpr std::int64_t shortest = 512, most_workers = 8192, unit = 128;
  const std::int64_t wanted =
      std::max({shortest, 2 * num_places, (num_slots + most_workers - 1) / most_workers});
  const std::int64_t length = (wanted + unit - 1) / unit * unit;
  return {num_slots, length, std::max<std::int64_t>((num_slots + length - 1) / length, 1),
          static_cast<int>(num_places)};
}

// Places of some of the experts, by value: what a launch can carry.
constexpr std::int64_t places_per_launch = 960;
struct SomePlaces {
  std::int32_t first_expert = 0;
  std::int32_t count = 0;
  std::int32_t num_experts = 0;
  std::int32_t places[places_per_launch];
};

constexpr int slot_threads = 256;

// place_of_slot[slot] for the slots whose expert is among `some`; the first launch also puts down
// the dropped ones.
__global__ void place_kernel(Slots indices, std::int64_t num_slots,
                             const __grid_constant__ SomePlaces some, Slots place_of_slot) {
  const std::int64_t slot = std::int64_t{blockIdx.x} * slot_threads + threadIdx.x;
  if (slot >= num_slots) return;
  const std::int32_t expert = indices[slot];
  expect_index(expert, some.num_experts);
  if (expert == dropped && some.first_expert == 0) place_of_slot[slot] = dropped;
  const std::int32_t number = expert - some.first_expert;
  if (expert != dropped && number >= 0 && number < some.count)
    place_of_slot[slot] = some.places[number];
}

__device__ std::int64_t worker_of_warp() {
  return std::int64_t{blockIdx.x} * (blockDim.x / 32) + threadIdx.x / 32;
}

// Step 1. counts_of_workers: [places, workers].
__global__ void count_kernel(Slots place_of_slot, Chunks chunks, std::int32_t* counts_of_workers) {
  extern __shared__ std::int32_t shared[];  // [warps, places]
  const std::int64_t worker = worker_of_warp();
  if (worker >= chunks.num_workers) return;
  const int lane = threadIdx.x % 32;
  std::int32_t* counters = shared + threadIdx.x / 32 * chunks.num_places;
  for (int p = lane; p < chunks.num_places; p += 32) counters[p] = 0;
  __syncwarp();
  const std::int64_t begin = worker * chunks.length;
  const std::int64_t end = min(begin + chunks.length, chunks.num_slots);
#pragma unroll 4
  for (std::int64_t slot = begin + lane; slot < end; slot += 32) {
    const std::int32_t place = place_of_slot[slot];
    expect_index(place, chunks.num_places);
    if (place != dropped) atomicAdd(counters + place, 1);
  }
  __syncwarp();
  for (int p = lane; p < chunks.num_places; p += 32)
    counts_of_workers[p * chunks.num_workers + worker] = counters[p];
}

// Step 2: a block has a place.
constexpr int scan_threads = 256;
__global__ void scan_kernel(std::int32_t* counts_of_workers, std::int64_t num_workers,
                            std::int32_t* counts) {
  std::int32_t* of_place = counts_of_workers + blockIdx.x * num_workers;
  std::int32_t sum = 0;
  for (std::int64_t begin = 0; begin < num_workers; begin += scan_threads) {
    const std::int64_t worker = begin + threadIdx.x;
    const std::int32_t count = worker < num_workers ? of_place[worker] : 0;
    const BlockSum of_block = block_exclusive_sum(count);
    if (worker < num_workers) of_place[worker] = sum + of_block.before;
    sum += of_block.total;
  }
  if (threadIdx.x == 0) counts[blockIdx.x] = sum;
}

// starts[p] = sum of the counts before p. A thread has some neighbours.
__device__ void fill_starts(const std::int32_t* counts, int num_places, std::int32_t* starts) {
  const int per_thread =
      (num_places + static_cast<int>(blockDim.x) - 1) / static_cast<int>(blockDim.x);
  const int begin = min(static_cast<int>(threadIdx.x) * per_thread, num_places);
  const int end = min(begin + per_thread, num_places);
  std::int32_t sum = 0;
  for (int p = begin; p < end; ++p) sum += counts[p];
  std::int32_t start = block_exclusive_sum(sum).before;
  for (int p = begin; p < end; ++p) {
    starts[p] = start;
    start += counts[p];
  }
  __syncthreads();
}

// The rows of 32 neighbouring slots of a worker, lane by lane. counters[p]: the row of the worker's
// next slot of place p.
__device__ std::int32_t next_row(std::int32_t place, std::int32_t* counters) {
  const unsigned lane = threadIdx.x % 32;
  const unsigned alike = __match_any_sync(whole_warp, place);
  const int leader = __ffs(static_cast<int>(alike)) - 1;
  std::int32_t first = 0;
  if (place != dropped && static_cast<int>(lane) == leader) {
    first = counters[place];
    counters[place] = first + __popc(alike);
  }
  first = __shfl_sync(whole_warp, first, leader);
  __syncwarp();  // the next call reads the counters in other lanes
  return place == dropped ? dropped : first + __popc(alike & ((1u << lane) - 1));
}

// Step 3. before_workers: what step 2 made, or null for a single worker. row_of_slot may be
// place_of_slot.
__global__ void row_kernel(Slots place_of_slot, Chunks chunks, const std::int32_t* counts,
                           const std::int32_t* before_workers, Slots row_of_slot) {
  extern __shared__ std::int32_t shared[];  // starts [places], counters [warps, places]
  fill_starts(counts, chunks.num_places, shared);
  const std::int64_t worker = worker_of_warp();
  if (worker >= chunks.num_workers) return;
  const int lane = threadIdx.x % 32;
  std::int32_t* counters = shared + (1 + threadIdx.x / 32) * chunks.num_places;
  for (int p = lane; p < chunks.num_places; p += 32)
    counters[p] = shared[p] +
                  (before_workers == nullptr ? 0 : before_workers[p * chunks.num_workers + worker]);
  __syncwarp();
  const std::int64_t begin = worker * chunks.length;
  const std::int64_t end = min(begin + chunks.length, chunks.num_slots);
  constexpr int group = 4;  // runs of 32 slots whose places are read at once
  for (std::int64_t base = begin; base < end; base += 32 * group) {
    std::int32_t places[group];
#pragma unroll
    for (int i = 0; i < group; ++i) {
      const std::int64_t slot = base + 32 * i + lane;
      places[i] = slot < end ? place_of_slot[slot] : dropped;
    }
#pragma unroll
    for (int i = 0; i < group; ++i) {
      const std::int64_t slot = base + 32 * i + lane;
      const std::int32_t row = next_row(places[i], counters);
      if (slot < end) row_of_slot[slot] = row;
    }
  }
}

// Step 4.
__global__ void token_kernel(Slots row_of_slot, const std::int32_t* counts, Chunks chunks,
                             std::int32_t* token_of_row) {
  std::int32_t sum = 0;
  for (int p = static_cast<int>(threadIdx.x); p < chunks.num_places; p += slot_threads)
    sum += counts[p];
  const std::int32_t num_rows = block_exclusive_sum(sum).total;
  const std::int64_t slot = std::int64_t{blockIdx.x} * slot_threads + threadIdx.x;
  if (slot >= chunks.num_slots) return;
  const std::int32_t row = row_of_slot[slot];
  if (row != dropped)
    token_of_row[row] = static_cast<std::int32_t>(static_cast<unsigned>(slot) / row_of_slot.top_k);
  if (slot >= num_rows) token_of_row[slot] = dropped;
}

// Puts the places of all slots to row_of_slot.
void place_slots(const TensorView& indices, std::span<const std::int32_t> place_of_expert,
                 const TensorView& row_of_slot) {
  const std::int64_t num_slots = indices.numel();
  for (std::int64_t first = 0; first < std::ssize(place_of_expert); first += places_per_launch) {
    SomePlaces some;
    some.first_expert = static_cast<std::int32_t>(first);
    some.count =
        static_cast<std::int32_t>(std::min(places_per_launch, std::ssize(place_of_expert) - first));
    some.num_experts = static_cast<std::int32_t>(place_of_expert.size());
    std::copy_n(place_of_expert.begin() + first, some.count, some.places);
    place_kernel<<<num_blocks(num_slots, slot_threads), slot_threads, 0, stream_of(row_of_slot)>>>(
        slots_of(indices), num_slots, some, slots_of(row_of_slot));
    check_launch();
  }
}

// Workers of a block, which have `places` counters each and share as many starts.
struct BlockShape {
  int warps = 0;
  std::size_t count_bytes = 0;  // of shared memory, step 1
  std::size_t row_bytes = 0;    // step 3
};

BlockShape block_shape(std::int64_t num_places) {
  constexpr std::size_t of_block_sums = 32 * sizeof(std::int32_t);
  constexpr std::size_t without_asking = (48 << 10) - of_block_sums;
  const std::size_t bytes = static_cast<std::size_t>(num_places) * sizeof(std::int32_t);
  const int warps = 5 * bytes <= without_asking ? 4 : 1;
  const BlockShape shape{warps, static_cast<std::size_t>(warps) * bytes,
                         static_cast<std::size_t>(1 + warps) * bytes};
  if (shape.row_bytes <= without_asking) return shape;
  int card = 0;
  int most = 0;
  check(cudaGetDevice(&card));
  check(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, card));
  expect(shape.row_bytes + of_block_sums <= static_cast<std::size_t>(most),
         "fewer places of experts than a card can sort by (about 20,000)");
  check(cudaFuncSetAttribute(count_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(shape.count_bytes)));
  check(cudaFuncSetAttribute(row_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(shape.row_bytes)));
  return shape;
}

}  // namespace

void sort_by_expert(const TensorView& indices, std::span<const std::int32_t> place_of_expert,
                    const TensorView& counts, const TensorView& row_of_slot,
                    const TensorView& token_of_row) {
  expect(std::ranges::all_of(place_of_expert,
                             [&](std::int32_t p) { return 0 <= p && p < counts.numel(); }),
         "a place that is counted for each expert");
  expect(indices.numel() <= std::numeric_limits<std::int32_t>::max(), "fewer than 2^31 slots");
  const Chunks chunks = cut(indices.numel(), counts.numel());
  const bool is_placed = !place_of_expert.empty() && chunks.num_slots > 0;
  if (is_placed) place_slots(indices, place_of_expert, row_of_slot);
  const Slots place_of_slot = slots_of(is_placed ? row_of_slot : indices);
  const Slots rows = slots_of(row_of_slot);
  std::int32_t* count = pointer<std::int32_t>(counts);
  std::int32_t* token = pointer_or_null<std::int32_t>(token_of_row);
  const cudaStream_t stream = stream_of(counts);
  const BlockShape shape = block_shape(counts.numel());
  const unsigned blocks = num_blocks(chunks.num_workers, shape.warps);
  const unsigned threads = static_cast<unsigned>(32 * shape.warps);
  const bool is_alone = chunks.num_workers == 1;

  count_kernel<<<blocks, threads, shape.count_bytes, stream>>>(place_of_slot, chunks,
                                                               is_alone ? count : token);
  check_launch();
  if (chunks.num_slots == 0) return;
  if (!is_alone) {
    scan_kernel<<<static_cast<unsigned>(counts.numel()), scan_threads, 0, stream>>>(
        token, chunks.num_workers, count);
    check_launch();
  }
  row_kernel<<<blocks, threads, shape.row_bytes, stream>>>(place_of_slot, chunks, count,
                                                           is_alone ? nullptr : token, rows);
  check_launch();
  token_kernel<<<num_blocks(chunks.num_slots, slot_threads), slot_threads, 0, stream>>>(
      rows, count, chunks, token);
  check_launch();
}

}  // namespace switchyard::kernels::cuda
