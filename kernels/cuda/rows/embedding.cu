#include "kernels/cuda/rows/embedding.hpp"

#include "kernels/cuda/rows/token_sort.cuh"
#include "kernels/cuda/runs.cuh"
#include "tensor/error.hpp"

namespace switchyard::kernels::cuda {

namespace {

template <class T, int width, bool whole>
struct LookUp {
  const std::int32_t* tokens;
  CardRows<float> table;
  CardRows<T> out;
  std::int64_t table_rows;
  __device__ void operator()(std::int64_t row, std::int64_t col, std::int64_t left) const {
    const std::int32_t token = tokens[row];
    expect_on_card(0 <= token && token < table_rows, "tokens within the table");
    const Run<float, width> from = load_run<float, width, whole>(table[token] + col, left);
    Run<T, width> to;
#pragma unroll
    for (int j = 0; j < width; ++j) to.values[j] = from_float<T>(from.values[j]);
    store_run<T, width, whole>(out[row] + col, left, to);
  }
};

constexpr unsigned most_threads = 256;

template <class T>
struct Accumulate {
  SortedTokens sorted;
  std::int64_t num_tokens;
  std::int64_t cols;
  CardRows<T> dout;
  CardRows<float> dtable;
};

template <class T, int width>
__device__ void add_run(Run<float, width>& sum, const Run<T, width>& run) {
#pragma unroll
  for (int j = 0; j < width; ++j) sum.values[j] += to_float(run.values[j]);
}

// One block for every sorted token, of which the first of its row of the table does the work: it
// adds the row's tokens in order, many on their way at once.
template <class T, int width, bool whole>
__global__ void __launch_bounds__(most_threads, 4) accumulate_kernel(const Accumulate<T> op) {
  const std::int64_t first = blockIdx.x;
  const std::int32_t row = op.sorted.keys[first];
  if (first > 0 && op.sorted.keys[first - 1] == row) return;
  std::int64_t end = first + 1;
  for (unsigned more = blockDim.x; more == blockDim.x; end += more) {
    const std::int64_t i = end + threadIdx.x;
    more =
        static_cast<unsigned>(__syncthreads_count(i < op.num_tokens && op.sorted.keys[i] == row));
  }
  const std::int64_t col = (std::int64_t{blockIdx.y} * blockDim.x + threadIdx.x) * width;
  const std::int64_t left = op.cols - col;
  if (left <= 0) return;

  constexpr int at_once = 128 / (width * static_cast<int>(sizeof(T)));  // in 32 registers
  float* const to = op.dtable[row] + col;
  Run<float, width> sum = load_run<float, width, whole>(to, left);
  std::int64_t i = first;
  for (; i + at_once <= end; i += at_once) {
    Run<T, width> runs[at_once];
#pragma unroll
    for (int k = 0; k < at_once; ++k)
      runs[k] = load_run<T, width, whole>(op.dout[op.sorted.places[i + k]] + col, left);
#pragma unroll
    for (int k = 0; k < at_once; ++k) add_run(sum, runs[k]);
  }
#pragma unroll 2
  for (; i < end; ++i)
    add_run(sum, load_run<T, width, whole>(op.dout[op.sorted.places[i]] + col, left));
  store_run<float, width, whole>(to, left, sum);
}

}  // namespace

void embedding_forward(const TensorView& tokens, const TensorView& table, const TensorView& out) {
  with_float_type(out.dtype, [&](auto type) {
    using T = decltype(type);
    constexpr int width = packet_size<T>;
    const auto launch = [&]<bool whole>() {
      for_each_run<width>(
          stream_of(out), out.rows(), out.cols(),
          LookUp<T, width, whole>{pointer<std::int32_t>(tokens), card_rows<float>(table),
                                  card_rows<T>(out), table.rows()});
    };
    if (in_runs<float, width>(table) && in_runs<T, width>(out))
      launch.template operator()<true>();
    else
      launch.template operator()<false>();
  });
}

void embedding_backward(const TensorView& tokens, const TensorView& dout,
                        const TensorView& dtable) {
  const cudaStream_t stream = stream_of(dout);
  const std::int64_t num_tokens = tokens.numel();
  expect(num_tokens < std::int64_t{1} << 31, "fewer than 2^31 tokens");
  const TokenSort sort(num_tokens, dtable.rows());
  const SortedTokens sorted =
      sort_tokens(sort, pointer<std::int32_t>(tokens), dtable.rows(),
                  dout.device->kernel_scratch(sort.scratch_bytes()), stream);
  with_float_type(dout.dtype, [&](auto type) {
    using T = decltype(type);
    constexpr int width = packet_size<float>;
    const Accumulate<T> op{sorted, num_tokens, dout.cols(), card_rows<T>(dout),
                           card_rows<float>(dtable)};
    const std::int64_t runs = (dout.cols() + width - 1) / width;
    const unsigned threads =
        static_cast<unsigned>(std::clamp<std::int64_t>((runs + 31) / 32 * 32, 32, most_threads));
    const dim3 blocks(num_blocks(num_tokens, 1), num_blocks(runs, threads));
    if (in_runs<T, width>(dout) && in_runs<float, width>(dtable))
      accumulate_kernel<T, width, true><<<blocks, threads, 0, stream>>>(op);
    else
      accumulate_kernel<T, width, false><<<blocks, threads, 0, stream>>>(op);
  });
  check_launch();
}

}  // namespace switchyard::kernels::cuda
