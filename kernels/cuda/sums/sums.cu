#include "kernels/cuda/sums/sums.hpp"

#include "kernels/cuda/sums/sums_sizes.hpp"
#include "kernels/cuda/sums/tensor_list.cuh"

namespace switchyard::kernels::cuda {

namespace {

constexpr int threads = 256;

enum class Term : bool { value, square };

struct Values {
  const float* data;
  std::int64_t numel;
  std::int64_t cols;    // of a row
  std::int64_t stride;  // from row to row; equals cols: one long row
  bool in_packets;      // one long row at a multiple of 16 bytes
};

// Few enough for the 4 KiB that go with a launch.
using Tensors = TensorList<Values, 64>;
static_assert(sizeof(Tensors) < 4000);

Values values_of(const TensorView& view) {
  const float* data = pointer<float>(view);
  const bool dense = view.is_contiguous();
  const std::int64_t cols = dense ? view.numel() : view.cols();
  return {data, view.numel(), cols, dense ? cols : view.row_stride,
          dense && reinterpret_cast<std::uintptr_t>(data) % 16 == 0};
}

template <Term term>
__device__ double term_of(float value) {
  const auto exact = static_cast<double>(value);
  return term == Term::square ? exact * exact : exact;
}

// A thread's share of elements begin ... end - 1. Element i belongs to thread i / 4 % threads, so
// that packets and single elements are added in one order.
template <Term term>
__device__ double sum_of_thread(const Values& values, std::int64_t begin, std::int64_t end) {
  constexpr std::int64_t width = packet_size<float>;
  double sum = 0;
  std::int64_t i = begin + threadIdx.x * width;
  constexpr int at_once = 4;  // packets that a thread has on their way
  constexpr std::int64_t step = threads * width;
  for (; values.in_packets && i + (at_once - 1) * step + width <= end; i += at_once * step) {
    Packet<float> packets[at_once];
#pragma unroll
    for (int k = 0; k < at_once; ++k)
      packets[k] = *reinterpret_cast<const Packet<float>*>(values.data + i + k * step);
#pragma unroll
    for (int k = 0; k < at_once; ++k)
#pragma unroll
      for (int j = 0; j < width; ++j) sum += term_of<term>(packets[k].values[j]);
  }
  for (; i < end; i += step)
    for (std::int64_t k = i; k < min(i + width, end); ++k) {
      const std::int64_t place =
          values.stride == values.cols ? k : k / values.cols * values.stride + k % values.cols;
      sum += term_of<term>(values.data[place]);
    }
  return sum;
}

template <Term term>
__global__ void __launch_bounds__(threads)
    sum_chunks_kernel(const __grid_constant__ Tensors list, double* of_chunk) {
  const int which = list.tensor_of(blockIdx.x);
  const Values& values = list.tensors[which];
  const std::int64_t begin = (blockIdx.x - list.first_block[which]) * sum_chunk;
  const std::int64_t end = min(begin + sum_chunk, values.numel);
  const double sum = block_sum<threads>(sum_of_thread<term>(values, begin, end));
  if (threadIdx.x == 0) of_chunk[blockIdx.x] = sum;
}

// into += (sum of the chunks) / divisor. One block.
constexpr int total_threads = 1024;

__global__ void __launch_bounds__(total_threads)
    add_chunks_kernel(const double* of_chunk, std::int64_t num_chunks, double divisor,
                      double* into) {
  double sum = 0;
#pragma unroll 8
  for (std::int64_t i = threadIdx.x; i < num_chunks; i += total_threads) sum += of_chunk[i];
  sum = block_sum<total_threads>(sum);
  if (threadIdx.x == 0) *into += sum / divisor;
}

template <Term term>
void add_terms(std::span<const TensorView> tensors, double divisor, const TensorView& into) {
  const std::int64_t scratch_bytes = sums_scratch_bytes(tensors);
  if (scratch_bytes == 0) return;
  auto* const of_chunk = reinterpret_cast<double*>(into.device->kernel_scratch(scratch_bytes));
  const cudaStream_t stream = stream_of(into);
  Tensors list;
  std::int64_t done = 0;
  const auto launch = [&] {
    if (list.size == 0) return;
    sum_chunks_kernel<term>
        <<<num_blocks(list.num_blocks(), 1), threads, 0, stream>>>(list, of_chunk + done);
    check_launch();
    done += list.num_blocks();
    list.size = 0;
  };
  for (const TensorView& view : tensors) {
    if (view.empty()) continue;
    list.add(values_of(view), num_sum_chunks(view));
    if (list.is_full()) launch();
  }
  launch();
  add_chunks_kernel<<<1, total_threads, 0, stream>>>(of_chunk, done, divisor,
                                                     pointer<double>(into));
  check_launch();
}

__global__ void add_quotients_kernel(const double* values, double divisor, double* into,
                                     std::int64_t count) {
  const std::int64_t i = std::int64_t{blockIdx.x} * threads + threadIdx.x;
  if (i < count) into[i] += values[i] / divisor;
}

}  // namespace

void add_sum(const TensorView& values, double divisor, const TensorView& into) {
  add_terms<Term::value>({&values, 1}, divisor, into);
}

void add_sum_of_squares(std::span<const TensorView> tensors, const TensorView& into) {
  add_terms<Term::square>(tensors, 1, into);
}

void add_quotients(const TensorView& values, double divisor, const TensorView& into) {
  add_quotients_kernel<<<num_blocks(values.numel(), threads), threads, 0, stream_of(into)>>>(
      pointer<double>(values), divisor, pointer<double>(into), values.numel());
  check_launch();
}

}  // namespace switchyard::kernels::cuda
