#include "tests/support/card_in_host_memory.hpp"

#include "tensor/cuda/cuda_device.hpp"
#include "tensor/cuda/cuda_stream.hpp"
#include "tensor/cuda/pinned_device.hpp"
#include "tensor/cuda/runtime.hpp"

namespace switchyard::test {

namespace {

using cuda::CudaStream;
using cuda::StreamPriority;

class CardInHostMemory final : public Device {
 public:
  CardInHostMemory()
      : Device(DeviceKind::cuda, std::make_unique<CudaStream>(StreamPriority::normal),
               std::make_unique<CudaStream>(StreamPriority::high)),
        memory_(cuda::make_pinned_device()) {}

  Device& host() override { return *memory_; }
  std::byte* allocate(std::int64_t bytes) override { return memory_->allocate(bytes); }
  void deallocate(std::byte* address, std::int64_t bytes) noexcept override {
    wait();
    memory_->deallocate(address, bytes);
  }
  std::byte* reserve(std::int64_t max_bytes) override { return memory_->reserve(max_bytes); }
  void commit(std::byte* address, std::int64_t committed, std::int64_t bytes) override {
    memory_->commit(address, committed, bytes);
  }
  void release(std::byte* address, std::int64_t max_bytes) noexcept override {
    wait();
    memory_->release(address, max_bytes);
  }

 private:
  // For those who cannot report: what a kernel was stopped for shows at the next call that can.
  void wait() noexcept { cudaStreamSynchronize(cuda::native(compute_stream())); }

  std::unique_ptr<Device> memory_;
};

}  // namespace

std::unique_ptr<Device> make_card_in_host_memory() {
  return std::make_unique<CardInHostMemory>();
}

}  // namespace switchyard::test
