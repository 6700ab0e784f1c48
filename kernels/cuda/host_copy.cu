#include "kernels/cuda/host_copy.hpp"

#include "kernels/cuda/common.cuh"

namespace switchyard::kernels::cuda {

namespace {

// Rows of `width` bytes, `pitch` apart. One call for what lies together: pitches end at 2 GiB.
void copy_rows(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch,
               std::size_t width, std::size_t rows, cudaStream_t stream) {
  if (rows == 1)
    check(cudaMemcpyAsync(to, from, width, cudaMemcpyDefault, stream));
  else
    check(
        cudaMemcpy2DAsync(to, to_pitch, from, from_pitch, width, rows, cudaMemcpyDefault, stream));
}

std::size_t rows_apart(const TensorView& view) {
  return view.is_contiguous() ? 1 : static_cast<std::size_t>(view.rows());
}
std::size_t pitch_of(const TensorView& view) {
  return static_cast<std::size_t>(view.row_stride * size_of(view.dtype));
}

}  // namespace

void copy_bytes_to_host(const TensorView& from, void* to) {
  const std::size_t rows = rows_apart(from);
  const std::size_t width = static_cast<std::size_t>(from.num_bytes()) / rows;
  copy_rows(to, width, from.kernel_bytes(), pitch_of(from), width, rows, stream_of(from));
  from.device->compute_stream().wait_host();
}

void copy_bytes_from_host(const void* from, const TensorView& to) {
  const std::size_t rows = rows_apart(to);
  const std::size_t width = static_cast<std::size_t>(to.num_bytes()) / rows;
  copy_rows(to.kernel_bytes(), pitch_of(to), from, width, width, rows, stream_of(to));
  to.device->compute_stream().wait_host();
}

}  // namespace switchyard::kernels::cuda
