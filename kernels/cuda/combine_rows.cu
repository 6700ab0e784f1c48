// Combining rows into tokens, and the way back.
#include "kernels/cuda/permute.hpp"
#include "kernels/cuda/rows.cuh"

namespace switchyard::kernels::cuda {

namespace {

constexpr int threads = 256;
constexpr int rows_in_flight = 4;

// Neighbours of a row that a thread has: a packet, or one element.
template <class T, int width>
struct alignas(width * sizeof(T)) Run {
  T values[width];
};
template <class T, int width>
__device__ Run<T, width> load_run(const T* row, std::int64_t run) {
  return reinterpret_cast<const Run<T, width>*>(row)[run];
}
template <class T, int width>
__device__ void store_run(const Run<T, width>& values, T* row, std::int64_t run) {
  reinterpret_cast<Run<T, width>*>(row)[run] = values;
}

template <class T>
struct CombineOperands {
  Rows<const T> rows;
  std::int64_t num_rows = 0;
  Rows<const std::int32_t> row_of_slot;
  Rows<const float> weights;  // null: all 1
  int top_k = 0;
  Rows<T> out;
  std::int64_t num_tokens = 0;
  std::int64_t runs = 0;  // of a row
};

// Some neighbouring threads share a token; each has runs of it, and adds the rows in the order of
// the choices.
template <class T, int width, bool weighted>
__global__ void __launch_bounds__(threads, 4)
    combine_kernel(CombineOperands<T> operands, int log2_threads) {
  const std::int64_t number = std::int64_t{blockIdx.x} * threads + threadIdx.x;
  const std::int64_t t = number >> log2_threads;
  if (t >= operands.num_tokens) return;
  const std::int64_t step = std::int64_t{1} << log2_threads;
  const std::int32_t* row_of_slot = operands.row_of_slot[t];
  const float* weights = weighted ? operands.weights[t] : nullptr;
  const int top_k = operands.top_k;
  for (std::int64_t run = number & (step - 1); run < operands.runs; run += step) {
    float sums[width] = {};
    for (int first = 0; first < top_k; first += rows_in_flight) {
      std::int32_t rows[rows_in_flight];
      Run<T, width> values[rows_in_flight];
#pragma unroll
      for (int u = 0; u < rows_in_flight; ++u) {
        rows[u] = first + u < top_k ? row_of_slot[first + u] : -1;
        expect_index(rows[u], operands.num_rows);
      }
#pragma unroll
      for (int u = 0; u < rows_in_flight; ++u)
        if (rows[u] >= 0) values[u] = load_run<T, width>(operands.rows[rows[u]], run);
#pragma unroll
      for (int u = 0; u < rows_in_flight; ++u) {
        if (rows[u] < 0) continue;
        float weight = 1;
        if constexpr (weighted) weight = weights[first + u];
#pragma unroll
        for (int i = 0; i < width; ++i) {
          const float value = to_float(values[u].values[i]);
          if constexpr (weighted)
            sums[i] = fmaf(weight, value, sums[i]);
          else
            sums[i] += value;
        }
      }
    }
    Run<T, width> result;
#pragma unroll
    for (int i = 0; i < width; ++i) result.values[i] = from_float<T>(sums[i]);
    store_run<T, width>(result, operands.out[t], run);
  }
}

template <class T>
struct BackwardOperands {
  Rows<const T> dout;
  Rows<const T> rows;
  std::int64_t num_rows = 0;
  Rows<const std::int32_t> row_of_slot;
  Rows<const float> weights;
  std::int64_t top_k = 0;
  Rows<T> drows;
  Rows<float> dweights;
  std::int64_t num_slots = 0;
  std::int64_t runs = 0;
};

// A warp has a slot; those of a token lie together, so that its dout is read once from memory.
template <class T, int width>
__global__ void backward_kernel(BackwardOperands<T> operands) {
  const std::int64_t slot = std::int64_t{blockIdx.x} * (threads / 32) + threadIdx.x / 32;
  if (slot >= operands.num_slots) return;
  const int lane = threadIdx.x % 32;
  const std::int64_t t = slot / operands.top_k;
  const std::int64_t j = slot - t * operands.top_k;
  const std::int32_t row = operands.row_of_slot[t][j];
  expect_index(row, operands.num_rows);
  if (row < 0) {
    if (lane == 0) operands.dweights[t][j] = 0;
    return;
  }
  const float weight = operands.weights[t][j];
  const T* gradients = operands.dout[t];
  const T* values = operands.rows[row];
  T* results = operands.drows[row];
  float dot = 0;
  for (std::int64_t first = lane; first < operands.runs; first += 32 * rows_in_flight) {
    Run<T, width> gradient[rows_in_flight];
    Run<T, width> value[rows_in_flight];
#pragma unroll
    for (int u = 0; u < rows_in_flight; ++u) {
      const std::int64_t run = first + 32 * u;
      if (run >= operands.runs) continue;
      gradient[u] = load_run<T, width>(gradients, run);
      value[u] = load_run<T, width>(values, run);
    }
#pragma unroll
    for (int u = 0; u < rows_in_flight; ++u) {
      const std::int64_t run = first + 32 * u;
      if (run >= operands.runs) continue;
      Run<T, width> result;
#pragma unroll
      for (int i = 0; i < width; ++i) {
        const float g = to_float(gradient[u].values[i]);
        dot = fmaf(g, to_float(value[u].values[i]), dot);
        result.values[i] = from_float<T>(g * weight);
      }
      store_run<T, width>(result, results, run);
    }
  }
  dot = warp_sum(dot);
  if (lane == 0) operands.dweights[t][j] = dot;
}

bool in_packets(const TensorView& view) {
  return view.empty() || has_packets(view);
}

template <class T, int width>
void launch_combine(const TensorView& rows, const TensorView& row_of_slot,
                    const TensorView& weights, const TensorView& out) {
  const CombineOperands<T> operands{.rows = rows_of<const T>(rows),
                                    .num_rows = rows.rows(),
                                    .row_of_slot = rows_of<const std::int32_t>(row_of_slot),
                                    .weights = rows_of<const float>(weights),
                                    .top_k = static_cast<int>(row_of_slot.cols()),
                                    .out = rows_of<T>(out),
                                    .num_tokens = out.rows(),
                                    .runs = out.cols() / width};
  const int log2_threads = log2_threads_of_row(operands.runs, threads);
  const unsigned blocks = num_blocks(out.rows() << log2_threads, threads);
  if (weights.empty())
    combine_kernel<T, width, false><<<blocks, threads, 0, stream_of(out)>>>(operands, log2_threads);
  else
    combine_kernel<T, width, true><<<blocks, threads, 0, stream_of(out)>>>(operands, log2_threads);
}

}  // namespace

void combine_rows(const TensorView& rows, const TensorView& row_of_slot, const TensorView& weights,
                  const TensorView& out) {
  with_float_type(out.dtype, [&](auto type) {
    using T = decltype(type);
    if (in_packets(rows) && in_packets(out))
      launch_combine<T, packet_size<T>>(rows, row_of_slot, weights, out);
    else
      launch_combine<T, 1>(rows, row_of_slot, weights, out);
  });
  check_launch();
}

void sum_rows(const TensorView& rows, const TensorView& row_of_slot, const TensorView& out) {
  combine_rows(rows, row_of_slot, TensorView{}, out);
}

void combine_rows_backward(const TensorView& dout, const TensorView& rows,
                           const TensorView& row_of_slot, const TensorView& weights,
                           const TensorView& drows, const TensorView& dweights) {
  const std::int64_t num_slots = row_of_slot.numel();
  with_float_type(dout.dtype, [&](auto type) {
    using T = decltype(type);
    const auto launch = [&]<int width>() {
      const BackwardOperands<T> operands{.dout = rows_of<const T>(dout),
                                         .rows = rows_of<const T>(rows),
                                         .num_rows = rows.rows(),
                                         .row_of_slot = rows_of<const std::int32_t>(row_of_slot),
                                         .weights = rows_of<const float>(weights),
                                         .top_k = row_of_slot.cols(),
                                         .drows = rows_of<T>(drows),
                                         .dweights = rows_of<float>(dweights),
                                         .num_slots = num_slots,
                                         .runs = dout.cols() / width};
      backward_kernel<T, width>
          <<<num_blocks(num_slots, threads / 32), threads, 0, stream_of(dout)>>>(operands);
    };
    if (in_packets(dout) && in_packets(rows) && in_packets(drows))
      launch.template operator()<packet_size<T>>();
    else
      launch.template operator()<1>();
  });
  check_launch();
}

}  // namespace switchyard::kernels::cuda
