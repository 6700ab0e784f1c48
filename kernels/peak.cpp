#include "kernels/peak.hpp"

#include <algorithm>
#include <chrono>

#include "cmake/built_with.hpp"
#include "kernels/products/linear.hpp"
#include "tensor/cuda/cuda_device.hpp"

namespace switchyard::kernels {

namespace {

struct ProductSize {
  std::int64_t rows = 2048;
  std::int64_t out_features = 1024;
  std::int64_t in_features = 512;
};

// A device of the same kind, whose memory is in no figure of the run's.
std::unique_ptr<Device> make_device_like(const Device& device) {
  if constexpr (built_with_cuda)
    if (device.kind() == DeviceKind::cuda) return make_cuda_device(current_card().index);
  return make_cpu_device();
}

}  // namespace

double measure_product_peak(Device& device, DType compute, double seconds) {
  if (device.is_plan()) return 0;
  const bool is_card = device.kind() == DeviceKind::cuda;
  const auto [rows, out_features, in_features] =
      is_card ? ProductSize{8192, 8192, 8192} : ProductSize{};
  const std::unique_ptr<Device> scratch = make_device_like(device);
  const Tensor weights(*scratch, Purpose::workspace, DType::f32, {out_features, in_features});
  PackedWeight packed(*scratch, out_features, in_features, compute, false);
  packed.pack(weights);
  const Tensor x(*scratch, Purpose::workspace, compute, {rows, in_features});
  const Tensor y(*scratch, Purpose::workspace, compute, {rows, out_features});
  using Clock = std::chrono::steady_clock;
  const auto since = [](Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
  };
  const auto multiply = [&] {
    linear_forward(x, packed, y);
    scratch->compute_stream().wait_host();
  };
  multiply();  // creates the primitives
  const Clock::time_point start = Clock::now();
  double best = 1e30;
  while (since(start) < seconds) {
    const Clock::time_point once = Clock::now();
    multiply();
    best = std::min(best, since(once));
  }
  return 2.0 * static_cast<double>(rows * out_features * in_features) / best;
}

}  // namespace switchyard::kernels
