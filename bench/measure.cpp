#include "bench/measure.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "kernels/peak.hpp"
#include "kernels/rows/elementwise.hpp"
#include "tensor/error.hpp"
#include "tensor/random.hpp"

namespace switchyard::bench {

namespace {

constexpr double repetition_seconds = 0.005;  // far above the clock's and a barrier's noise
constexpr double ceiling_seconds = 0.5;       // long enough to meet an undisturbed moment

// Mean seconds of a call, on the slowest rank.
double time_calls(Group& world, const std::function<void()>& call, std::int64_t num_calls) {
  using Clock = std::chrono::steady_clock;
  world.barrier();
  const Clock::time_point start = Clock::now();
  for (std::int64_t i = 0; i < num_calls; ++i) call();
  double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  world.all_reduce_values({&seconds, 1}, ReduceOp::max);
  return seconds / static_cast<double>(num_calls);
}

double sum_over_ranks(Group& world, double value) {
  world.all_reduce_values({&value, 1}, ReduceOp::sum);
  return value;
}

}  // namespace

Times times_of(std::vector<double> seconds) {
  expect(!seconds.empty(), "at least one time");
  std::sort(seconds.begin(), seconds.end());
  const std::size_t middle = seconds.size() / 2;
  const double median =
      seconds.size() % 2 == 1 ? seconds[middle] : (seconds[middle - 1] + seconds[middle]) / 2;
  return {seconds.front(), median, seconds.back()};
}

Times measure(Group& world, const Repeats& repeats, const std::function<void()>& call) {
  for (int i = 0; i < repeats.num_warmup; ++i) call();
  // The same number on all ranks, since a call may be an exchange.
  const double once = time_calls(world, call, 1);
  const auto num_calls = static_cast<std::int64_t>(
      std::clamp(std::ceil(repetition_seconds / std::max(once, 1e-9)), 1.0, 10'000.0));
  std::vector<double> seconds;
  for (int i = 0; i < repeats.num_steps; ++i) seconds.push_back(time_calls(world, call, num_calls));
  return times_of(std::move(seconds));
}

double measure_products(Group& world, Device& device, DType precision) {
  world.barrier();
  return sum_over_ranks(world, kernels::measure_product_peak(device, precision, ceiling_seconds));
}

double measure_copies(Group& world, Device& device) {
  constexpr std::int64_t numel = std::int64_t{1} << 25;  // 128 MiB, beyond the caches
  const Tensor from(device, Purpose::workspace, DType::f32, {numel});
  const Tensor to(device, Purpose::workspace, DType::f32, {numel});
  fill_random(from->slice_rows(0, 1024), 0);
  const double bytes = 2.0 * static_cast<double>(from->num_bytes());
  const Times times =
      measure(world, {.num_warmup = 1, .num_steps = 9}, [&] { kernels::copy(from, to); });
  return sum_over_ranks(world, bytes / times.min);
}

void fill_random(const TensorView& view, std::uint32_t stream) {
  if (view.device->is_plan()) return;
  const RandomKey key{.seed = 1, .stream = stream};
  for (std::int64_t i = 0; i < view.numel(); i += 4) {
    const auto words = random_words(key, static_cast<std::uint64_t>(i), 0);
    const std::int64_t count = std::min<std::int64_t>(4, view.numel() - i);
    for (std::int64_t j = 0; j < count; ++j) {
      const float value = 2 * uniform(words[static_cast<std::size_t>(j)]) - 1;
      if (view.dtype == DType::f32)
        view.host<float>()[i + j] = value;
      else
        view.host<BFloat16>()[i + j] = to_bf16(value);
    }
  }
}

std::string_view precision_name(DType dtype) {
  return dtype == DType::f32 ? "fp32" : "bf16";
}

}  // namespace switchyard::bench
