// Times of kernels on a card, for the programs cuda_speed_*: medians by the card's own clock,
// beside the rate of a copy that the same run measured.
#pragma once

#include <cuda_runtime_api.h>
#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <functional>
#include <string_view>

#include "kernels/rows/elementwise.hpp"
#include "tensor/cuda/runtime.hpp"
#include "tensor/tensor.hpp"

namespace switchyard::test {

class CardTimer {
 public:
  explicit CardTimer(Device& device) : stream_(cuda::native(device.compute_stream())) {
    cuda::check(cudaEventCreate(&begin_));
    cuda::check(cudaEventCreate(&end_));
    constexpr std::int64_t bytes = std::int64_t{1} << 30;
    const Tensor from(device, Purpose::workspace, DType::u8, {bytes});
    const Tensor to(device, Purpose::workspace, DType::u8, {bytes});
    copy_rate_ = 2.0 * bytes / seconds([&] { kernels::copy(from, to); });
    fmt::print("{:<34} {:>22} {:>9} {:>7} {:>9}\n", "operation", "size", "us", "TB/s", "% of copy");
    print("copy", "1 GiB", 2.0 * bytes / copy_rate_, 2.0 * bytes);
  }
  ~CardTimer() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
  }
  CardTimer(const CardTimer&) = delete;
  CardTimer& operator=(const CardTimer&) = delete;

  // Prints a line. bytes: what the operation must read and write.
  void time(std::string_view operation, std::string_view size, double bytes,
            const std::function<void()>& run) const {
    print(operation, size, seconds(run), bytes);
  }

  // The median of 10 runs after 3 that warm up.
  double seconds(const std::function<void()>& run) const {
    for (int i = 0; i < 3; ++i) run();
    std::array<float, 10> milliseconds{};
    for (float& time : milliseconds) {
      cuda::check(cudaEventRecord(begin_, stream_));
      run();
      cuda::check(cudaEventRecord(end_, stream_));
      cuda::check(cudaEventSynchronize(end_));
      cuda::check(cudaEventElapsedTime(&time, begin_, end_));
    }
    std::ranges::sort(milliseconds);
    return (static_cast<double>(milliseconds[4]) + static_cast<double>(milliseconds[5])) / 2 * 1e-3;
  }

 private:
  void print(std::string_view operation, std::string_view size, double seconds,
             double bytes) const {
    const double rate = bytes / seconds;
    fmt::print("{:<34} {:>22} {:>9.1f} {:>7.2f} {:>8.0f} %\n", operation, size, seconds * 1e6,
               rate * 1e-12, 100 * rate / copy_rate_);
  }

  cudaStream_t stream_;
  cudaEvent_t begin_ = nullptr;
  cudaEvent_t end_ = nullptr;
  double copy_rate_ = 0;  // bytes a second, read and written
};

}  // namespace switchyard::test
