#include "kernels/host_copy.hpp"

#include "kernels/cpu/host_copy.hpp"
#include "kernels/cuda/host_copy.hpp"
#include "kernels/dispatch.hpp"

namespace switchyard::kernels {

void copy_bytes_to_host(const TensorView& from, void* to) {
  if (from.empty()) return;
  dispatch(
      *from.device, [&] { cpu::copy_bytes_to_host(from, to); }, [] {},
      [&] { cuda::copy_bytes_to_host(from, to); });
}

void copy_bytes_from_host(const void* from, const TensorView& to) {
  if (to.empty()) return;
  dispatch(
      *to.device, [&] { cpu::copy_bytes_from_host(from, to); }, [] {},
      [&] { cuda::copy_bytes_from_host(from, to); });
}

}  // namespace switchyard::kernels
