#include "tensor/cuda/cuda_device.hpp"

#include <fmt/core.h>

#include "tensor/arena.hpp"
#include "tensor/cuda/cuda_stream.hpp"
#include "tensor/cuda/mapped_memory.hpp"
#include "tensor/cuda/pinned_device.hpp"
#include "tensor/cuda/runtime.hpp"
#include "tensor/error.hpp"

namespace switchyard {

namespace {

using cuda::check;
using cuda::CudaStream;
using cuda::StreamPriority;

class CudaDevice final : public Device {
 public:
  explicit CudaDevice(int card)
      : Device(DeviceKind::cuda, std::make_unique<CudaStream>(StreamPriority::normal),
               std::make_unique<CudaStream>(StreamPriority::high)),
        memory_of_card_(card),
        pinned_(cuda::make_pinned_device()) {
    std::size_t free_bytes = 0;
    std::size_t total_bytes = 0;
    check(cudaMemGetInfo(&free_bytes, &total_bytes));
    shared_range_ = memory_of_card_.reserve(static_cast<std::int64_t>(total_bytes));
  }
  ~CudaDevice() override { wait_for_streams(); }

  Device& host() override { return *pinned_; }

  std::byte* allocate(std::int64_t bytes) override {
    const std::int64_t offset = arena_.take(bytes);
    try {
      memory_of_card_.grow(shared_range_, arena_.high_water());
    } catch (...) {
      arena_.give_back(offset, bytes);
      throw;
    }
    fill_zero(shared_range_ + offset, bytes);
    return shared_range_ + offset;
  }
  void deallocate(std::byte* address, std::int64_t bytes) noexcept override {
    arena_.give_back(address - shared_range_, bytes);
  }

  std::byte* reserve(std::int64_t max_bytes) override { return memory_of_card_.reserve(max_bytes); }
  void commit(std::byte* address, std::int64_t, std::int64_t bytes) override {
    const auto [before, after] = memory_of_card_.grow(address, bytes);
    if (after > before) fill_zero(address + before, after - before);
  }
  void release(std::byte* address, std::int64_t) noexcept override {
    wait_for_streams();
    memory_of_card_.release(address);
  }

 private:
  void fill_zero(std::byte* address, std::int64_t bytes) {
    check(cudaMemsetAsync(address, 0, static_cast<std::size_t>(bytes),
                          cuda::native(compute_stream())));
  }
  // For those who cannot report: what fails here shows at the next call that can.
  void wait_for_streams() noexcept {
    cudaStreamSynchronize(cuda::native(compute_stream()));
    cudaStreamSynchronize(cuda::native(communication_stream()));
  }

  cuda::MappedMemory memory_of_card_;
  std::unique_ptr<Device> pinned_;
  Arena arena_{256};  // what kernels and copies like their operands aligned to
  std::byte* shared_range_ = nullptr;
};

int version_major(int version) {
  return version / 1000;
}
int version_minor(int version) {
  return version % 1000 / 10;
}

}  // namespace

int num_cuda_cards() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

CudaCard current_card() {
  int card = 0;
  check(cudaGetDevice(&card));
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, card));
  std::size_t free_bytes = 0;
  std::size_t total_bytes = 0;
  check(cudaMemGetInfo(&free_bytes, &total_bytes));
  return {card, static_cast<const char*>(properties.name), static_cast<std::int64_t>(total_bytes),
          static_cast<std::int64_t>(free_bytes)};
}

std::string why_no_cuda_card() {
  int driver = 0;
  int runtime = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  if (driver == 0)
    return "this machine has no NVIDIA driver that answers; install it (nvidia-smi must work)";
  if (version_major(driver) < version_major(runtime))
    return fmt::format(
        "the NVIDIA driver serves CUDA up to {}.{} and this program was built with {}.{}; install "
        "a newer driver, or build with an older toolkit",
        version_major(driver), version_minor(driver), version_major(runtime),
        version_minor(runtime));
  if (num_cuda_cards() == 0)
    return "the driver finds no card (nvidia-smi -L lists them; CUDA_VISIBLE_DEVICES may hide "
           "them)";
  return "";
}

std::unique_ptr<Device> make_cuda_device(int card) {
  const std::string trouble = why_no_cuda_card();
  if (!trouble.empty())
    throw ConfigError("run.device: cuda, but " + trouble + ", or write run.device: cpu");
  const int count = num_cuda_cards();
  if (card < 0 || card >= count)
    throw ConfigError(fmt::format(
        "run.device: cuda, but card {} was asked for and this host has {} (0 to {}): start one "
        "rank a card on each host, or write run.device: cpu",
        card, count, count - 1));
  check(cudaSetDevice(card));
  return std::make_unique<CudaDevice>(card);
}

}  // namespace switchyard
