#include "kernels/cuda/routing/permute.hpp"

#include "kernels/cuda/rows.cuh"

namespace switchyard::kernels::cuda {

namespace {

constexpr int threads = 256;
constexpr int most_threads_of_row = 32;
constexpr int accesses_in_flight = 4;

// Rows as bytes, which these kernels move whatever they mean.
struct ByteRows {
  std::byte* data = nullptr;
  std::int64_t stride = 0;  // bytes
  std::int64_t count = 0;

  __device__ std::byte* operator[](std::int64_t row) const { return data + row * stride; }
};
ByteRows byte_rows_of(const TensorView& view) {
  return {view.empty() ? nullptr : view.kernel_bytes(), view.row_stride * size_of(view.dtype),
          view.rows()};
}

// Some neighbouring threads move a row. gathering: dst[i] = src[index[i]], else dst[index[i]] =
// src[i], for i < num_indices.
template <class Access, bool gathering>
__global__ void move_kernel(ByteRows src, const std::int32_t* index, std::int64_t num_indices,
                            ByteRows dst, std::int64_t accesses, int log2_threads) {
  const std::int64_t number = std::int64_t{blockIdx.x} * threads + threadIdx.x;
  const std::int64_t i = number >> log2_threads;
  if (i >= num_indices) return;
  const std::int32_t other = index[i];
  expect_index(other, gathering ? src.count : dst.count);
  const bool is_dropped = other < 0;
  if (is_dropped && !gathering) return;
  const std::int64_t step = std::int64_t{1} << log2_threads;
  const auto* from =
      is_dropped ? nullptr : reinterpret_cast<const Access*>(src[gathering ? other : i]);
  auto* to = reinterpret_cast<Access*>(dst[gathering ? i : other]);
  for (std::int64_t a = number & (step - 1); a < accesses; a += accesses_in_flight * step) {
    Access values[accesses_in_flight];
#pragma unroll
    for (int u = 0; u < accesses_in_flight; ++u)
      values[u] = from != nullptr && a + u * step < accesses ? from[a + u * step] : Access{};
#pragma unroll
    for (int u = 0; u < accesses_in_flight; ++u)
      if (a + u * step < accesses) to[a + u * step] = values[u];
  }
}

// call(Access{}) with the widest access that addresses, strides and lengths of the rows allow.
template <class Call>
void with_access(const ByteRows& src, const ByteRows& dst, std::int64_t row_bytes, Call call) {
  const auto bits = reinterpret_cast<std::uintptr_t>(src.data) |
                    reinterpret_cast<std::uintptr_t>(dst.data) |
                    static_cast<std::uintptr_t>(src.stride | dst.stride | row_bytes);
  if (bits % 16 == 0) return call(uint4{});
  if (bits % 4 == 0) return call(std::uint32_t{});
  call(std::uint16_t{});
}

template <bool gathering>
void move_rows(const TensorView& src, const TensorView& index, const TensorView& dst) {
  const std::int64_t row_bytes = dst.cols() * size_of(dst.dtype);
  const ByteRows from = byte_rows_of(src), to = byte_rows_of(dst);
  with_access(from, to, row_bytes, [&](auto type) {
    using Access = decltype(type);
    const std::int64_t accesses = row_bytes / static_cast<std::int64_t>(sizeof(Access));
    const int log2_threads = log2_threads_of_row(accesses, most_threads_of_row);
    move_kernel<Access, gathering>
        <<<num_blocks(index.numel() << log2_threads, threads), threads, 0, stream_of(dst)>>>(
            from, pointer<std::int32_t>(index), index.numel(), to, accesses, log2_threads);
  });
  check_launch();
}

}  // namespace

void gather_rows(const TensorView& src, const TensorView& index, const TensorView& dst) {
  move_rows<true>(src, index, dst);
}

void scatter_rows(const TensorView& src, const TensorView& index, const TensorView& dst) {
  move_rows<false>(src, index, dst);
}

}  // namespace switchyard::kernels::cuda
