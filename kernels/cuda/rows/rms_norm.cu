#include "kernels/cuda/rows/rms_norm.hpp"

#include "kernels/cuda/rows/rms_norm_sizes.hpp"
#include "kernels/cuda/runs.cuh"

namespace switchyard::kernels::cuda {

namespace {

constexpr unsigned most_threads = 1024;
constexpr unsigned most_warps = most_threads / 32;

// Threads for a row that is cut into `runs`, of which a thread is to have `per_thread`.
unsigned threads_for(std::int64_t runs, std::int64_t per_thread) {
  const std::int64_t warps = (runs + 32 * per_thread - 1) / (32 * per_thread);
  return 32 * static_cast<unsigned>(std::clamp<std::int64_t>(warps, 1, most_warps));
}

// A run of the weight, whose address need not be that of a run.
template <int width>
__device__ Run<float, width> load_weight(const float* from, std::int64_t left, bool whole) {
  return whole ? load_run<float, width, true>(from, left)
               : load_run<float, width, false>(from, left);
}

template <class T>
struct Forward {
  CardRows<T> x, delta, sum, y;  // delta and sum: of the fused addition
  const float* weight;
  float* rstd;
  std::int64_t cols;
  float epsilon;
  bool whole_weight;
};

// What a thread takes of x, and of delta.
template <class T, int width>
struct Taken {
  Run<T, width> x, delta;
};

template <class T, int width, bool adds, bool whole>
__device__ Taken<T, width> take_run(const Forward<T>& op, std::int64_t row, std::int64_t col) {
  const std::int64_t left = op.cols - col;
  Taken<T, width> taken;
  taken.x = load_run<T, width, whole>(op.x[row] + col, left);
  if constexpr (adds) taken.delta = load_run<T, width, whole>(op.delta[row] + col, left);
  return taken;
}

// x, or x + delta, rounded and written to sum.
template <class T, int width, bool adds, bool whole>
__device__ Run<T, width> add_run(const Forward<T>& op, const Taken<T, width>& taken,
                                 std::int64_t row, std::int64_t col) {
  Run<T, width> run = taken.x;
  if constexpr (adds) {
#pragma unroll
    for (int j = 0; j < width; ++j)
      run.values[j] = from_float<T>(to_float(run.values[j]) + to_float(taken.delta.values[j]));
    store_run<T, width, whole>(op.sum[row] + col, op.cols - col, run);
  }
  return run;
}

template <class T, int width, bool whole>
__device__ void write_normalized(const Forward<T>& op, const Run<T, width>& run, float rstd,
                                 std::int64_t row, std::int64_t col) {
  const std::int64_t left = op.cols - col;
  const Run<float, width> weight = load_weight<width>(op.weight + col, left, op.whole_weight);
  Run<T, width> out;
#pragma unroll
  for (int j = 0; j < width; ++j)
    out.values[j] = from_float<T>(to_float(run.values[j]) * rstd * weight.values[j]);
  store_run<T, width, whole>(op.y[row] + col, left, out);
}

template <class T, int width>
__device__ float sum_of_squares(const Run<T, width>& run) {
  float sum = 0;
#pragma unroll
  for (int j = 0; j < width; ++j) {
    const float value = to_float(run.values[j]);
    sum += value * value;
  }
  return sum;
}

constexpr int held_runs = 2;

// One block a row. The first runs of each thread stay in registers; a longer row is read again.
template <class T, int width, bool adds, bool whole>
__global__ void __launch_bounds__(most_threads) forward_kernel(const Forward<T> op) {
  __shared__ float of_warp[most_warps];
  const std::int64_t row = blockIdx.x;
  const std::int64_t first = std::int64_t{threadIdx.x} * width;
  const std::int64_t step = std::int64_t{blockDim.x} * width;
  Taken<T, width> taken[held_runs];
  Run<T, width> held[held_runs];
  float squares = 0;
#pragma unroll
  for (int k = 0; k < held_runs; ++k)
    if (first + k * step < op.cols)
      taken[k] = take_run<T, width, adds, whole>(op, row, first + k * step);
#pragma unroll
  for (int k = 0; k < held_runs; ++k)
    if (first + k * step < op.cols) {
      held[k] = add_run<T, width, adds, whole>(op, taken[k], row, first + k * step);
      squares += sum_of_squares(held[k]);
    }
  for (std::int64_t col = first + held_runs * step; col < op.cols; col += step)
    squares += sum_of_squares(add_run<T, width, adds, whole>(
        op, take_run<T, width, adds, whole>(op, row, col), row, col));

  squares = sum_of_block(squares, of_warp);
  const float rstd = 1.0f / sqrtf(squares / static_cast<float>(op.cols) + op.epsilon);
  if (threadIdx.x == 0) op.rstd[row] = rstd;

#pragma unroll
  for (int k = 0; k < held_runs; ++k)
    if (first + k * step < op.cols)
      write_normalized<T, width, whole>(op, held[k], rstd, row, first + k * step);
  const CardRows<T> again = adds ? op.sum : op.x;
  for (std::int64_t col = first + held_runs * step; col < op.cols; col += step)
    write_normalized<T, width, whole>(
        op, load_run<T, width, whole>(again[row] + col, op.cols - col), rstd, row, col);
}

template <class T, bool adds>
void launch_forward(const TensorView& x, const TensorView& delta, const TensorView& weight,
                    float epsilon, const TensorView& sum, const TensorView& y,
                    const TensorView& rstd) {
  constexpr int width = packet_size<T>;
  Forward<T> op{.x = card_rows<T>(x),
                .delta = {},
                .sum = {},
                .y = card_rows<T>(y),
                .weight = pointer<float>(weight),
                .rstd = pointer<float>(rstd),
                .cols = x.cols(),
                .epsilon = epsilon,
                .whole_weight = in_runs<float, width>(weight.reshape({1, x.cols()}))};
  bool whole = in_runs<T, width>(x) && in_runs<T, width>(y);
  if constexpr (adds) {
    op.delta = card_rows<T>(delta);
    op.sum = card_rows<T>(sum);
    whole = whole && in_runs<T, width>(delta) && in_runs<T, width>(sum);
  }
  const unsigned threads = threads_for((x.cols() + width - 1) / width, held_runs);
  const unsigned blocks = num_blocks(x.rows(), 1);
  if (whole)
    forward_kernel<T, width, adds, true><<<blocks, threads, 0, stream_of(x)>>>(op);
  else
    forward_kernel<T, width, adds, false><<<blocks, threads, 0, stream_of(x)>>>(op);
  check_launch();
}

template <class T>
struct Backward {
  CardRows<T> dy, x, residual, dx;
  const float* weight;
  const float* rstd;
  float* partials;  // [chunks, cols]
  std::int64_t rows;
  std::int64_t cols;
  std::int64_t rows_per_chunk;
  bool whole_weight;
  bool adds_residual;
};

// With n = x rstd, of one run: dx = rstd (dy weight - n mean(dy weight n)) + residual, and the
// gradient of the weight, dy n, is added to `dweight`.
template <class T, int width, bool whole>
__device__ void write_gradient(const Backward<T>& op, const Run<T, width>& dy,
                               const Run<T, width>& x, const Run<float, width>& weight, float rstd,
                               float mean, std::int64_t row, std::int64_t col,
                               Run<float, width>& dweight) {
  const std::int64_t left = op.cols - col;
  Run<T, width> residual{};
  if (op.adds_residual) residual = load_run<T, width, whole>(op.residual[row] + col, left);
  Run<T, width> out;
#pragma unroll
  for (int j = 0; j < width; ++j) {
    const float gradient = to_float(dy.values[j]);
    const float normalized = to_float(x.values[j]) * rstd;
    float result = (gradient * weight.values[j] - normalized * mean) * rstd;
    if (op.adds_residual) result += to_float(residual.values[j]);
    out.values[j] = from_float<T>(result);
    dweight.values[j] += gradient * normalized;
  }
  store_run<T, width, whole>(op.dx[row] + col, left, out);
}

template <class T, int width>
__device__ float weighted_dot(const Run<T, width>& dy, const Run<T, width>& x,
                              const Run<float, width>& weight) {
  float sum = 0;
#pragma unroll
  for (int j = 0; j < width; ++j)
    sum += to_float(dy.values[j]) * weight.values[j] * to_float(x.values[j]);
  return sum;
}

// One block a chunk of rows, for rows of at most one run a thread: the weight and the sum of its
// gradient stay in registers, and the next row is on its way while this one is summed.
template <class T, int width, bool whole>
__global__ void __launch_bounds__(most_threads) backward_kernel(const Backward<T> op) {
  __shared__ float of_warp[2][most_warps];
  const std::int64_t begin = blockIdx.x * op.rows_per_chunk;
  const std::int64_t end = min(begin + op.rows_per_chunk, op.rows);
  const std::int64_t col = std::int64_t{threadIdx.x} * width;
  const std::int64_t left = op.cols - col;
  const bool has_run = left > 0;
  Run<float, width> weight{}, dweight{};
  Run<T, width> dy{}, x{};
  float rstd = op.rstd[begin];
  if (has_run) {
    weight = load_weight<width>(op.weight + col, left, op.whole_weight);
    dy = load_run<T, width, whole>(op.dy[begin] + col, left);
    x = load_run<T, width, whole>(op.x[begin] + col, left);
  }
  for (std::int64_t row = begin; row < end; ++row) {
    Run<T, width> next_dy{}, next_x{};
    const float next_rstd = row + 1 < end ? op.rstd[row + 1] : 0.0f;
    if (has_run && row + 1 < end) {
      next_dy = load_run<T, width, whole>(op.dy[row + 1] + col, left);
      next_x = load_run<T, width, whole>(op.x[row + 1] + col, left);
    }
    const float dot = sum_of_block(weighted_dot(dy, x, weight), of_warp[(row - begin) % 2]);
    const float mean = dot * rstd / static_cast<float>(op.cols);
    if (has_run) write_gradient<T, width, whole>(op, dy, x, weight, rstd, mean, row, col, dweight);
    dy = next_dy;
    x = next_x;
    rstd = next_rstd;
  }
  if (has_run)
    store_run<float, width, false>(op.partials + blockIdx.x * op.cols + col, left, dweight);
}

// The same for rows of any length, which are read twice; the partial sums stay in memory.
template <class T, int width, bool whole>
__global__ void __launch_bounds__(most_threads) long_backward_kernel(const Backward<T> op) {
  __shared__ float of_warp[2][most_warps];
  const std::int64_t begin = blockIdx.x * op.rows_per_chunk;
  const std::int64_t end = min(begin + op.rows_per_chunk, op.rows);
  const std::int64_t first = std::int64_t{threadIdx.x} * width;
  const std::int64_t step = std::int64_t{blockDim.x} * width;
  float* partial = op.partials + blockIdx.x * op.cols;
  for (std::int64_t col = first; col < op.cols; col += step)
    store_run<float, width, false>(partial + col, op.cols - col, Run<float, width>{});
  for (std::int64_t row = begin; row < end; ++row) {
    float dot = 0;
    for (std::int64_t col = first; col < op.cols; col += step) {
      const std::int64_t left = op.cols - col;
      dot += weighted_dot(load_run<T, width, whole>(op.dy[row] + col, left),
                          load_run<T, width, whole>(op.x[row] + col, left),
                          load_weight<width>(op.weight + col, left, op.whole_weight));
    }
    const float rstd = op.rstd[row];
    const float mean =
        sum_of_block(dot, of_warp[(row - begin) % 2]) * rstd / static_cast<float>(op.cols);
    for (std::int64_t col = first; col < op.cols; col += step) {
      const std::int64_t left = op.cols - col;
      Run<float, width> dweight = load_run<float, width, false>(partial + col, left);
      write_gradient<T, width, whole>(op, load_run<T, width, whole>(op.dy[row] + col, left),
                                      load_run<T, width, whole>(op.x[row] + col, left),
                                      load_weight<width>(op.weight + col, left, op.whole_weight),
                                      rstd, mean, row, col, dweight);
      store_run<float, width, false>(partial + col, left, dweight);
    }
  }
}

// dweight += the sum over chunks. A block has 32 columns; each of its warps sums every so manyth
// chunk, then the first warp adds the warps' sums in order.
constexpr int sum_warps = 32;

__global__ void __launch_bounds__(32 * sum_warps)
    sum_chunks_kernel(const float* partials, std::int64_t chunks, std::int64_t cols,
                      float* dweight) {
  __shared__ float of_warp[sum_warps][32];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const std::int64_t col = std::int64_t{blockIdx.x} * 32 + lane;
  float sum = 0;
  if (col < cols) {
#pragma unroll 8
    for (std::int64_t chunk = warp; chunk < chunks; chunk += sum_warps)
      sum += partials[chunk * cols + col];
  }
  of_warp[warp][lane] = sum;
  __syncthreads();
  if (warp != 0 || col >= cols) return;
  for (int other = 1; other < sum_warps; ++other) sum += of_warp[other][lane];
  dweight[col] += sum;
}

template <class T>
void launch_backward(const Backward<T>& op, std::int64_t chunks, bool whole, cudaStream_t stream) {
  constexpr int width = packet_size<T>;
  const std::int64_t runs = (op.cols + width - 1) / width;
  const unsigned threads = threads_for(runs, 1);
  const unsigned blocks = num_blocks(chunks, 1);
  const bool held = runs <= threads;
  if (held && whole)
    backward_kernel<T, width, true><<<blocks, threads, 0, stream>>>(op);
  else if (held)
    backward_kernel<T, width, false><<<blocks, threads, 0, stream>>>(op);
  else if (whole)
    long_backward_kernel<T, width, true><<<blocks, threads, 0, stream>>>(op);
  else
    long_backward_kernel<T, width, false><<<blocks, threads, 0, stream>>>(op);
  check_launch();
}

}  // namespace

void rms_norm_forward(const TensorView& x, const TensorView& weight, float epsilon,
                      const TensorView& y, const TensorView& rstd) {
  with_float_type(x.dtype, [&](auto type) {
    launch_forward<decltype(type), false>(x, {}, weight, epsilon, {}, y, rstd);
  });
}

void add_rms_norm_forward(const TensorView& x, const TensorView& delta, const TensorView& weight,
                          float epsilon, const TensorView& sum, const TensorView& y,
                          const TensorView& rstd) {
  with_float_type(x.dtype, [&](auto type) {
    launch_forward<decltype(type), true>(x, delta, weight, epsilon, sum, y, rstd);
  });
}

void rms_norm_backward(const TensorView& dy, const TensorView& x, const TensorView& weight,
                       const TensorView& rstd, const TensorView& residual_gradient,
                       const TensorView& dx, const TensorView& dweight,
                       const TensorView& workspace) {
  const std::int64_t most_chunks = rms_norm_row_chunks(x.cols());
  const std::int64_t per_chunk = (x.rows() + most_chunks - 1) / most_chunks;
  const std::int64_t chunks = (x.rows() + per_chunk - 1) / per_chunk;
  // Memory of the device starts at a multiple of 64 bytes.
  float* partials = reinterpret_cast<float*>(pointer<std::uint8_t>(workspace));
  with_float_type(x.dtype, [&](auto type) {
    using T = decltype(type);
    constexpr int width = packet_size<T>;
    const bool adds = !residual_gradient.empty();
    const Backward<T> op{.dy = card_rows<T>(dy),
                         .x = card_rows<T>(x),
                         .residual = adds ? card_rows<T>(residual_gradient) : CardRows<T>{},
                         .dx = card_rows<T>(dx),
                         .weight = pointer<float>(weight),
                         .rstd = pointer<float>(rstd),
                         .partials = partials,
                         .rows = x.rows(),
                         .cols = x.cols(),
                         .rows_per_chunk = per_chunk,
                         .whole_weight = in_runs<float, width>(weight.reshape({1, x.cols()})),
                         .adds_residual = adds};
    const bool whole = in_runs<T, width>(dy) && in_runs<T, width>(x) && in_runs<T, width>(dx) &&
                       (!adds || in_runs<T, width>(residual_gradient));
    launch_backward(op, chunks, whole, stream_of(x));
  });
  sum_chunks_kernel<<<num_blocks(x.cols(), 32), 32 * sum_warps, 0, stream_of(x)>>>(
      partials, chunks, x.cols(), pointer<float>(dweight));
  check_launch();
}

}  // namespace switchyard::kernels::cuda
