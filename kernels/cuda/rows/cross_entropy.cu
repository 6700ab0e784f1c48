#include "kernels/cuda/rows/cross_entropy.hpp"

#include <cuda_pipeline.h>

#include <cfloat>

#include "kernels/cuda/runs.cuh"
#include "kernels/rows/cross_entropy.hpp"

namespace switchyard::kernels::cuda {

namespace {

constexpr int threads = 1024;
constexpr int num_warps = threads / 32;
constexpr int width = packet_size<float>;
using Logits = Run<float, width>;

// What a row is to learn, and how much it counts.
struct Aim {
  std::int32_t target;
  float weight;
};

template <class T>
struct Loss {
  CardRows<float> logits;
  CardRows<T> dlogits;  // no data: the gradient is not asked for
  const std::int32_t* targets;
  const float* weights;  // null: 1 each
  float* losses;
  std::int64_t rows;
  std::int64_t cols;
  std::int64_t vocab_size;
  float gradient_scale;

  __device__ Aim aim_of(std::int64_t row) const {
    return {targets[row], weights == nullptr ? 1.0f : weights[row]};
  }
  // Whether the row counts.
  __device__ bool check(const Aim& aim) const {
    expect_on_card(aim.target == no_target || (0 <= aim.target && aim.target < vocab_size),
                   "targets within the vocabulary");
    expect_on_card(isfinite(aim.weight) && aim.weight >= 0,
                   "weights that are finite and not below 0");
    return aim.target != no_target && aim.weight != 0;
  }
};

// sum over i of exp(x[i]) = exp(maximum) * sum. A NaN in x makes `sum` NaN. __expf errs by two
// units in the last place and by that of its argument, which grows as the term itself vanishes.
struct ExpSum {
  float maximum = -FLT_MAX;
  float sum = 0;

  // The first `left` of a run.
  __device__ void add(Logits x, std::int64_t left) {
    if (left < width)
#pragma unroll
      for (int j = 0; j < width; ++j)
        if (j >= left) x.values[j] = -INFINITY;
    const float highest =
        fmaxf(fmaxf(fmaxf(x.values[0], x.values[1]), fmaxf(x.values[2], x.values[3])), maximum);
    if (highest != maximum) sum *= __expf(maximum - highest);
    maximum = highest;
#pragma unroll
    for (int j = 0; j < width; ++j) sum += __expf(x.values[j] - maximum);
  }
};

// As sum_of_block.
__device__ float max_of_block(float value, float* of_warp) {
  const int lane = threadIdx.x % 32;
  value = warp_max(value);
  if (lane == 0) of_warp[threadIdx.x / 32] = value;
  __syncthreads();
  static_assert(num_warps == 32);
  return warp_max(of_warp[lane]);
}

// The gradient of a row: factor * exp(logit - maximum), but `at_target` there, which the target's
// thread alone knows, and 0 in the padding.
struct Gradient {
  std::int32_t target = no_target;
  float maximum = 0;
  float factor = 0;
  float at_target = 0;

  template <class T>
  __device__ Run<T, width> of(const Logits& x, std::int64_t col, std::int64_t vocab_size) const {
    float values[width];
#pragma unroll
    for (int j = 0; j < width; ++j) values[j] = __expf(x.values[j] - maximum) * factor;
    if (target / width == col / width)
#pragma unroll
      for (int j = 0; j < width; ++j)
        if (col + j == target) values[j] = at_target;
    if (col + width > vocab_size)
#pragma unroll
      for (int j = 0; j < width; ++j)
        if (col + j >= vocab_size) values[j] = 0;
    Run<T, width> run;
#pragma unroll
    for (int j = 0; j < width; ++j) run.values[j] = from_float<T>(values[j]);
    return run;
  }
};

// Where the runs of a row come from: the row itself, or shared memory that holds a whole row, of
// which each thread fetches and reads the runs that are its own.
template <bool whole, bool held>
struct Source {
  CardRows<float> logits;
  std::int64_t cols;
  Logits* row_held;

  __device__ Logits take(std::int64_t row, std::int64_t run) const {
    if constexpr (held)
      return row_held[run];
    else
      return load_run<float, width, whole>(logits[row] + run * width, cols - run * width);
  }
  __device__ void fetch(std::int64_t row, std::int64_t run) const {
    if constexpr (held)
      __pipeline_memcpy_async(row_held + run, logits[row] + run * width, sizeof(Logits));
  }
};

constexpr int runs_at_once = 4;  // that a thread has on their way

template <bool whole, bool held>
__device__ ExpSum exp_sum_of(const Source<whole, held>& source, std::int64_t row,
                             std::int64_t vocab_size) {
  const std::int64_t runs = (vocab_size + width - 1) / width;
  ExpSum sum;
  for (std::int64_t first = threadIdx.x; first < runs; first += runs_at_once * threads) {
    Logits x[runs_at_once];
#pragma unroll
    for (int k = 0; k < runs_at_once; ++k)
      if (first + k * threads < runs) x[k] = source.take(row, first + k * threads);
#pragma unroll
    for (int k = 0; k < runs_at_once; ++k)
      if (first + k * threads < runs) sum.add(x[k], vocab_size - (first + k * threads) * width);
  }
  return sum;
}

// Writes the loss of a row that counts and returns what its gradient is made of. When it returns,
// every thread has read what it wants of the logits except its own runs, which may be overwritten.
template <class T, bool whole, bool held>
__device__ Gradient learn(const Loss<T>& op, const Source<whole, held>& source, std::int64_t row,
                          const Aim& aim) {
  __shared__ float maximum_of_warp[num_warps];
  __shared__ double sum_of_warp[num_warps];
  const ExpSum mine = exp_sum_of(source, row, op.vocab_size);
  const float maximum = max_of_block(mine.maximum, maximum_of_warp);
  const float share = mine.sum * __expf(mine.maximum - maximum);
  const double sum = sum_of_block(static_cast<double>(share), sum_of_warp);
  const float scale = op.gradient_scale * aim.weight;
  Gradient gradient{aim.target, maximum, scale / static_cast<float>(sum), 0};
  // Double precision is slow, so one thread does what needs it: the one whose run has the target.
  if (aim.target / width % threads == static_cast<int>(threadIdx.x)) {
    const Logits x = source.take(row, aim.target / width);
    float logit = 0;
#pragma unroll
    for (int j = 0; j < width; ++j)
      if (aim.target % width == j) logit = x.values[j];
    const double above = static_cast<double>(logit) - static_cast<double>(maximum);
    op.losses[row] = aim.weight * static_cast<float>(log(sum) - above);
    gradient.at_target = static_cast<float>(scale * (exp(above) / sum - 1));
  }
  return gradient;
}

// One block a row at a time. With `held` the logits are read once: they lie in shared memory until
// the gradient is written, and as each run of it is, the run of the block's next row is fetched to
// its place. Without, they are read twice, the second time from the cache at best.
template <class T, bool whole, bool held>
__global__ void __launch_bounds__(threads) loss_kernel(const Loss<T> op) {
  static_assert(whole || !held);
  extern __shared__ Logits row_held[];
  const Source<whole, held> source{op.logits, op.cols, row_held};
  const std::int64_t runs = (op.cols + width - 1) / width;
  for (std::int64_t run = threadIdx.x; held && run < runs; run += threads)
    source.fetch(blockIdx.x, run);
  Aim aim = op.aim_of(blockIdx.x);
  for (std::int64_t row = blockIdx.x; row < op.rows; row += gridDim.x) {
    if constexpr (held) {
      __pipeline_commit();
      __pipeline_wait_prior(0);
    }
    const bool counts = op.check(aim);
    Gradient gradient;
    if (counts)
      gradient = learn(op, source, row, aim);
    else if (threadIdx.x == 0)
      op.losses[row] = 0;
    const std::int64_t next = row + gridDim.x;
    if (next < op.rows) aim = op.aim_of(next);
    if (op.dlogits.data == nullptr) continue;
    for (std::int64_t run = threadIdx.x; run < runs; run += threads) {
      const std::int64_t col = run * width;
      const Run<T, width> out =
          counts ? gradient.of<T>(source.take(row, run), col, op.vocab_size) : Run<T, width>{};
      store_run<T, width, whole>(op.dlogits[row] + col, op.cols - col, out);
      if (held && next < op.rows) source.fetch(next, run);
    }
  }
}

struct Card {
  int num_processors = 0;
  int shared_memory = 0;  // that a block may ask for
};

Card card_at_hand() {
  int number = 0;
  Card card;
  check(cudaGetDevice(&number));
  check(cudaDeviceGetAttribute(&card.num_processors, cudaDevAttrMultiProcessorCount, number));
  check(
      cudaDeviceGetAttribute(&card.shared_memory, cudaDevAttrMaxSharedMemoryPerBlockOptin, number));
  return card;
}

template <class T, bool whole>
void launch(const Loss<T>& op, cudaStream_t stream) {
  loss_kernel<T, whole, false><<<num_blocks(op.rows, 1), threads, 0, stream>>>(op);
  check_launch();
}

template <class T>
void launch_held(const Loss<T>& op, int bytes, const Card& card, cudaStream_t stream) {
  const auto kernel = loss_kernel<T, true, true>;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
  const auto blocks = std::min<std::int64_t>(op.rows, card.num_processors);
  kernel<<<num_blocks(blocks, 1), threads, static_cast<std::size_t>(bytes), stream>>>(op);
  check_launch();
}

}  // namespace

void softmax_cross_entropy(const TensorView& logits, const TensorView& targets,
                           std::int64_t vocab_size, float gradient_scale, const TensorView& losses,
                           const TensorView& dlogits, const TensorView& weights) {
  const bool differentiates = !dlogits.empty();
  const cudaStream_t stream = stream_of(logits);
  with_float_type(differentiates ? dlogits.dtype : DType::f32, [&](auto type) {
    using T = decltype(type);
    const Loss<T> op{.logits = card_rows<float>(logits),
                     .dlogits = differentiates ? card_rows<T>(dlogits) : CardRows<T>{},
                     .targets = pointer<std::int32_t>(targets),
                     .weights = weights.empty() ? nullptr : pointer<float>(weights),
                     .losses = pointer<float>(losses),
                     .rows = logits.rows(),
                     .cols = logits.cols(),
                     .vocab_size = vocab_size,
                     .gradient_scale = gradient_scale};
    const bool whole =
        in_runs<float, width>(logits) && (!differentiates || in_runs<T, width>(dlogits));
    const Card card = card_at_hand();
    constexpr std::int64_t of_sums = 1024;  // bytes, at least what sums over a block take
    const std::int64_t bytes = logits.cols() * static_cast<std::int64_t>(sizeof(float));
    if (whole && differentiates && bytes + of_sums <= card.shared_memory)
      launch_held(op, static_cast<int>(bytes), card, stream);
    else if (whole)
      launch<T, true>(op, stream);
    else
      launch<T, false>(op, stream);
  });
}

}  // namespace switchyard::kernels::cuda
