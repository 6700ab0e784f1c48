#include "kernels/peak.hpp"

#include <algorithm>
#include <chrono>

#include "kernels/linear.hpp"

namespace switchyard::kernels {

double measure_product_peak(Device& device, DType compute, double seconds) {
  if (device.is_plan()) return 0;
  constexpr std::int64_t rows = 2048, out_features = 1024, in_features = 512;
  // Its own device, so that the run's memory figures do not count it.
  const std::unique_ptr<Device> scratch = make_cpu_device();
  const Tensor weights(*scratch, Purpose::workspace, DType::f32, {out_features, in_features});
  PackedWeight packed(*scratch, out_features, in_features, compute, false);
  packed.pack(weights);
  const Tensor x(*scratch, Purpose::workspace, compute, {rows, in_features});
  const Tensor y(*scratch, Purpose::workspace, compute, {rows, out_features});
  using Clock = std::chrono::steady_clock;
  const auto since = [](Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
  };
  linear_forward(x, packed, y);  // creates the primitives
  const Clock::time_point start = Clock::now();
  double best = 1e30;
  while (since(start) < seconds) {
    const Clock::time_point once = Clock::now();
    linear_forward(x, packed, y);
    best = std::min(best, since(once));
  }
  return 2.0 * rows * out_features * in_features / best;
}

}  // namespace switchyard::kernels
