#include "kernels/cuda/rows/rope.hpp"

#include "kernels/cuda/runs.cuh"
#include "tensor/error.hpp"

namespace switchyard::kernels::cuda {

namespace {

constexpr unsigned most_threads = 256;

template <class T>
struct Rope {
  CardRows<T> x;
  CardRows<float> coarse, fine;  // rows: cos [half], sin [half]
  const std::int32_t* positions;
  std::int64_t num_positions;
  unsigned half;       // of a head
  unsigned num_heads;  // of a row
  float turn;          // 1 forward, -1 backward
};

// Two runs that are turned together: of the halves of one head, which start at `head` and `left`
// pairs before the half's end.
template <class T, int width>
struct Pairs {
  T* head;
  unsigned first;  // pair of the head
  std::int64_t left;
  Run<T, width> a, b;
};

template <class T, int width, bool whole>
__device__ Pairs<T, width> load_pairs(const Rope<T>& op, std::int64_t row, unsigned i) {
  const unsigned runs = (op.half + width - 1) / width;  // of half a head
  const unsigned first = i % runs * width;
  T* const head = op.x[row] + std::int64_t{i / runs} * 2 * op.half + first;
  const std::int64_t left = op.half - first;
  return {head, first, left, load_run<T, width, whole>(head, left),
          load_run<T, width, whole>(head + op.half, left)};
}

// (a, b) becomes (a cos - b sin, b cos + a sin). turns: cos [half], sin [half].
template <class T, int width, bool whole>
__device__ void turn_and_store(const Rope<T>& op, const float* turns, Pairs<T, width>& pairs) {
#pragma unroll
  for (int j = 0; j < width; ++j) {
    const unsigned pair = whole ? pairs.first + j : min(pairs.first + j, op.half - 1);
    const float c = turns[pair], s = turns[op.half + pair];
    const float u = to_float(pairs.a.values[j]), v = to_float(pairs.b.values[j]);
    pairs.a.values[j] = from_float<T>(u * c - v * s);
    pairs.b.values[j] = from_float<T>(v * c + u * s);
  }
  store_run<T, width, whole>(pairs.head, pairs.left, pairs.a);
  store_run<T, width, whole>(pairs.head + op.half, pairs.left, pairs.b);
}

// One block a row. Its threads turn the table's two angles into one, for every pair of a head,
// while their first pairs are on their way, and then share out the pairs of all heads.
template <class T, int width, bool whole>
__global__ void __launch_bounds__(most_threads) rope_kernel(const Rope<T> op) {
  extern __shared__ float turns[];
  const std::int64_t row = blockIdx.x;
  const unsigned count = op.num_heads * ((op.half + width - 1) / width);
  unsigned i = threadIdx.x;
  Pairs<T, width> pairs;
  if (i < count) pairs = load_pairs<T, width, whole>(op, row, i);

  const std::int32_t position = op.positions[row];
  expect_on_card(0 <= position && position < op.num_positions, "positions that the table covers");
  constexpr std::int32_t fine_positions = RopeTable::fine_positions;
  const float* coarse = op.coarse[position / fine_positions];
  const float* fine = op.fine[position % fine_positions];
  for (unsigned pair = threadIdx.x; pair < op.half; pair += blockDim.x) {
    const float c1 = coarse[pair], s1 = coarse[op.half + pair];
    const float c2 = fine[pair], s2 = fine[op.half + pair];
    turns[pair] = c1 * c2 - s1 * s2;
    turns[op.half + pair] = (s1 * c2 + c1 * s2) * op.turn;
  }
  __syncthreads();

  while (i < count) {
    turn_and_store<T, width, whole>(op, turns, pairs);
    i += blockDim.x;
    if (i < count) pairs = load_pairs<T, width, whole>(op, row, i);
  }
}

}  // namespace

void rope(const TensorView& x, const RopeTable& table, const TensorView& positions,
          std::int64_t head_dim, Rotation rotation) {
  constexpr std::int64_t most_dims = 8192;  // whose cos and sin have 32 KiB of shared memory
  expect(head_dim <= most_dims, "a head_dim of at most 8192");
  expect(x.cols() < std::int64_t{1} << 31, "rows of fewer than 2^31 elements");
  with_float_type(x.dtype, [&](auto type) {
    using T = decltype(type);
    constexpr int width = packet_size<T>;
    const Rope<T> op{.x = card_rows<T>(x),
                     .coarse = card_rows<float>(table.coarse),
                     .fine = card_rows<float>(table.fine),
                     .positions = pointer<std::int32_t>(positions),
                     .num_positions = table.num_positions,
                     .half = static_cast<unsigned>(head_dim / 2),
                     .num_heads = static_cast<unsigned>(x.cols() / head_dim),
                     .turn = rotation == Rotation::forward ? 1.0f : -1.0f};
    const std::int64_t runs = (head_dim / 2 + width - 1) / width * op.num_heads;
    const unsigned threads =
        static_cast<unsigned>(std::clamp<std::int64_t>((runs + 31) / 32 * 32, 32, most_threads));
    const std::size_t shared = static_cast<std::size_t>(head_dim) * sizeof(float);
    if (in_runs<T, width>(x) && head_dim / 2 % width == 0)
      rope_kernel<T, width, true><<<num_blocks(x.rows(), 1), threads, shared, stream_of(x)>>>(op);
    else
      rope_kernel<T, width, false><<<num_blocks(x.rows(), 1), threads, shared, stream_of(x)>>>(op);
  });
  check_launch();
}

}  // namespace switchyard::kernels::cuda
