#include "kernels/cpu/host_copy.hpp"

#include <cstring>

namespace switchyard::kernels::cpu {

namespace {

// each(bytes of the tensor, bytes before them, count) for runs that lie together.
template <class Each>
void for_each_run(const TensorView& view, Each each) {
  const std::int64_t rows = view.is_contiguous() ? 1 : view.rows();
  const std::int64_t bytes = view.num_bytes() / rows;
  for (std::int64_t row = 0; row < rows; ++row)
    each(view.kernel_bytes() + row * view.row_stride * size_of(view.dtype), row * bytes,
         static_cast<std::size_t>(bytes));
}

}  // namespace

void copy_bytes_to_host(const TensorView& from, void* to) {
  from.device->compute_stream().wait_host();
  for_each_run(from, [&](const std::byte* run, std::int64_t before, std::size_t count) {
    std::memcpy(static_cast<std::byte*>(to) + before, run, count);
  });
}

void copy_bytes_from_host(const void* from, const TensorView& to) {
  for_each_run(to, [&](std::byte* run, std::int64_t before, std::size_t count) {
    std::memcpy(run, static_cast<const std::byte*>(from) + before, count);
  });
}

}  // namespace switchyard::kernels::cpu
