#include "bench/measure.hpp"

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <span>
#include <thread>

#include "kernels/peak.hpp"
#include "kernels/rows/elementwise.hpp"
#include "tensor/error.hpp"
#include "tensor/random.hpp"

namespace switchyard::bench {

namespace {

constexpr double repetition_seconds = 0.005;  // far above the clock's and a barrier's noise
constexpr double ceiling_seconds = 0.5;       // long enough to meet an undisturbed moment

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Mean seconds of a call, on the slowest rank.
double time_calls(Group& world, const std::function<void()>& call, std::int64_t num_calls) {
  world.barrier();
  const Clock::time_point start = Clock::now();
  for (std::int64_t i = 0; i < num_calls; ++i) call();
  double seconds = seconds_since(start);
  world.all_reduce_values({&seconds, 1}, ReduceOp::max);
  return seconds / static_cast<double>(num_calls);
}

// The same of calls that `prepare` goes before, each timed by itself.
double time_prepared_calls(Group& world, const std::function<void()>& prepare,
                           const std::function<void()>& call, std::int64_t num_calls) {
  world.barrier();
  double seconds = 0;
  for (std::int64_t i = 0; i < num_calls; ++i) {
    prepare();
    const Clock::time_point start = Clock::now();
    call();
    seconds += seconds_since(start);
  }
  world.all_reduce_values({&seconds, 1}, ReduceOp::max);
  return seconds / static_cast<double>(num_calls);
}

double sum_over_ranks(Group& world, double value) {
  world.all_reduce_values({&value, 1}, ReduceOp::sum);
  return value;
}

// How often the system took a core from a thread of any rank that had work.
double num_preemptions(Group& world) {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return sum_over_ranks(world, static_cast<double>(usage.ru_nivcsw));
}

// The same number on all ranks, since a call may be an exchange.
std::int64_t calls_of_repetition(double once) {
  return static_cast<std::int64_t>(
      std::clamp(std::ceil(repetition_seconds / std::max(once, 1e-9)), 1.0, 10'000.0));
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
  const std::int64_t num_calls = calls_of_repetition(time_calls(world, call, 1));
  std::vector<double> seconds;
  for (int i = 0; i < repeats.num_steps; ++i) seconds.push_back(time_calls(world, call, num_calls));
  return times_of(std::move(seconds));
}

double QuietTimer::seconds_of(const std::function<void()>& prepare,
                              const std::function<void()>& call, int num_repetitions) {
  constexpr std::chrono::milliseconds moment{120};
  const auto time = [&](std::int64_t num_calls) {
    return prepare ? time_prepared_calls(world_, prepare, call, num_calls)
                   : time_calls(world_, call, num_calls);
  };
  time(1);
  const std::int64_t num_calls = calls_of_repetition(time(1));
  std::vector<double> quiet;
  double quickest = std::numeric_limits<double>::infinity();
  for (int turn = 0; std::ssize(quiet) < num_repetitions && turn < 3 * num_repetitions; ++turn) {
    const double before = num_preemptions(world_);
    const double seconds = time(num_calls);
    quickest = std::min(quickest, seconds);
    if (num_preemptions(world_) == before) {
      quiet.push_back(seconds);
    } else if (patience_ > 0) {
      --patience_;
      std::this_thread::sleep_for(moment);
    } else if (turn + 1 >= num_repetitions) {
      break;
    }
  }
  return quiet.empty() ? quickest : times_of(std::move(quiet)).median;
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
  constexpr std::int64_t num_drawn = 1 << 14;
  const RandomKey key{.seed = 1, .stream = stream};
  std::vector<float> drawn(static_cast<std::size_t>(std::min(num_drawn, view.numel())));
  for (std::size_t i = 0; i < drawn.size(); i += 4) {
    const auto words = random_words(key, i, 0);
    for (std::size_t j = 0; j < std::min<std::size_t>(4, drawn.size() - i); ++j)
      drawn[i + j] = 2 * uniform(words[j]) - 1;
  }
  const auto repeat = [&]<typename T>(std::span<T> values, std::span<const T> pattern) {
    for (std::size_t i = 0; i < values.size(); i += pattern.size())
      std::ranges::copy(pattern.first(std::min(pattern.size(), values.size() - i)),
                        values.begin() + static_cast<std::ptrdiff_t>(i));
  };
  if (view.dtype == DType::f32) {
    repeat(view.host_span<float>(), std::span<const float>(drawn));
    return;
  }
  std::vector<BFloat16> rounded(drawn.size());
  std::ranges::transform(drawn, rounded.begin(), [](float value) { return to_bf16(value); });
  repeat(view.host_span<BFloat16>(), std::span<const BFloat16>(rounded));
}

std::string_view precision_name(DType dtype) {
  return dtype == DType::f32 ? "fp32" : "bf16";
}

}  // namespace switchyard::bench
