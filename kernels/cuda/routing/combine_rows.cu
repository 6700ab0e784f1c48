// Combining rows into tokens, and the way back.
#include "kernels/cuda/routing/permute.hpp"
#include "kernels/cuda/rows.cuh"

namespace switchyard::kernels::cuda {

namespace {

constexpr int threads = 256;
constexpr int rows_in_flight = 4;

template <class T>
struct CombineOperands {
  CardRows<const T> rows;
  std::int64_t num_rows = 0;
  CardRows<const std::int32_t> row_of_slot;
  CardRows<const float> weights;  // null: all 1
  int top_k = 0;
  CardRows<T> out;
  std::int64_t num_tokens = 0;
  std::int64_t cols = 0;
};

// Some neighbouring threads share a token; each has runs of it, and adds the rows in the order of
// the choices.
template <class T, bool whole, bool weighted>
__global__ void __launch_bounds__(threads, 3)
    combine_kernel(CombineOperands<T> operands, int log2_threads) {
  const std::int64_t number = std::int64_t{blockIdx.x} * threads + threadIdx.x;
  const std::int64_t t = number >> log2_threads;
  if (t >= operands.num_tokens) return;
  const std::int64_t step = std::int64_t{1} << log2_threads;
  const std::int32_t* row_of_slot = operands.row_of_slot[t];
  const float* weights = weighted ? operands.weights[t] : nullptr;
  const int top_k = operands.top_k;
  constexpr int width = packet_size<T>;
  for (std::int64_t col = (number & (step - 1)) * width; col < operands.cols; col += step * width) {
    const std::int64_t left = operands.cols - col;
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
        if (rows[u] >= 0) values[u] = load_run<T, width, whole>(operands.rows[rows[u]] + col, left);
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
    store_run<T, width, whole>(operands.out[t] + col, left, result);
  }
}

template <class T>
struct BackwardOperands {
  CardRows<const T> dout;
  CardRows<const T> rows;
  std::int64_t num_rows = 0;
  CardRows<const std::int32_t> row_of_slot;
  CardRows<const float> weights;
  std::int64_t top_k = 0;
  CardRows<T> drows;
  CardRows<float> dweights;
  std::int64_t num_slots = 0;
  std::int64_t cols = 0;
};

// A warp has a slot; those of a token lie together, so that its dout is read once from memory.
template <class T, bool whole>
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
  constexpr int width = packet_size<T>;
  constexpr int step = 32 * width;
  float dot = 0;
  for (std::int64_t first = lane * width; first < operands.cols; first += step * rows_in_flight) {
    Run<T, width> gradient[rows_in_flight];
    Run<T, width> value[rows_in_flight];
#pragma unroll
    for (int u = 0; u < rows_in_flight; ++u) {
      const std::int64_t col = first + step * u;
      if (col >= operands.cols) continue;
      gradient[u] = load_run<T, width, whole>(gradients + col, operands.cols - col);
      value[u] = load_run<T, width, whole>(values + col, operands.cols - col);
    }
#pragma unroll
    for (int u = 0; u < rows_in_flight; ++u) {
      const std::int64_t col = first + step * u;
      if (col >= operands.cols) continue;
      Run<T, width> result;
#pragma unroll
      for (int i = 0; i < width; ++i) {
        const float g = to_float(gradient[u].values[i]);
        dot = fmaf(g, to_float(value[u].values[i]), dot);
        result.values[i] = from_float<T>(g * weight);
      }
      store_run<T, width, whole>(results + col, operands.cols - col, result);
    }
  }
  dot = warp_sum(dot);
  if (lane == 0) operands.dweights[t][j] = dot;
}

template <class T>
bool are_whole(const TensorView& rows) {
  return rows.empty() || in_runs<T, packet_size<T>>(rows);
}

template <class T, bool whole>
void launch_combine(const TensorView& rows, const TensorView& row_of_slot,
                    const TensorView& weights, const TensorView& out) {
  const CombineOperands<T> operands{.rows = card_rows<const T>(rows),
                                    .num_rows = rows.rows(),
                                    .row_of_slot = card_rows<const std::int32_t>(row_of_slot),
                                    .weights = card_rows<const float>(weights),
                                    .top_k = static_cast<int>(row_of_slot.cols()),
                                    .out = card_rows<T>(out),
                                    .num_tokens = out.rows(),
                                    .cols = out.cols()};
  const std::int64_t runs = (out.cols() + packet_size<T> - 1) / packet_size<T>;
  const int log2_threads = log2_threads_of_row(runs, threads);
  const unsigned blocks = num_blocks(out.rows() << log2_threads, threads);
  if (weights.empty())
    combine_kernel<T, whole, false><<<blocks, threads, 0, stream_of(out)>>>(operands, log2_threads);
  else
    combine_kernel<T, whole, true><<<blocks, threads, 0, stream_of(out)>>>(operands, log2_threads);
}

}  // namespace

void combine_rows(const TensorView& rows, const TensorView& row_of_slot, const TensorView& weights,
                  const TensorView& out) {
  with_float_type(out.dtype, [&](auto type) {
    using T = decltype(type);
    if (are_whole<T>(rows) && are_whole<T>(out))
      launch_combine<T, true>(rows, row_of_slot, weights, out);
    else
      launch_combine<T, false>(rows, row_of_slot, weights, out);
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
    const auto launch = [&]<bool whole>() {
      const BackwardOperands<T> operands{.dout = card_rows<const T>(dout),
                                         .rows = card_rows<const T>(rows),
                                         .num_rows = rows.rows(),
                                         .row_of_slot = card_rows<const std::int32_t>(row_of_slot),
                                         .weights = card_rows<const float>(weights),
                                         .top_k = row_of_slot.cols(),
                                         .drows = card_rows<T>(drows),
                                         .dweights = card_rows<float>(dweights),
                                         .num_slots = num_slots,
                                         .cols = dout.cols()};
      backward_kernel<T, whole>
          <<<num_blocks(num_slots, threads / 32), threads, 0, stream_of(dout)>>>(operands);
    };
    if (are_whole<T>(dout) && are_whole<T>(rows) && are_whole<T>(drows))
      launch.template operator()<true>();
    else
      launch.template operator()<false>();
  });
  check_launch();
}

}  // namespace switchyard::kernels::cuda
