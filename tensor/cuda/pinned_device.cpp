#include "tensor/cuda/pinned_device.hpp"

#include <cstring>
#include <map>
#include <vector>

#include "tensor/cuda/runtime.hpp"

namespace switchyard::cuda {

namespace {

// Pages are the host's own (make_cpu_device), made known to the driver as they come into use.
class PinnedDevice final : public Device {
 public:
  PinnedDevice() : Device(DeviceKind::cpu), pages_(make_cpu_device()) {}
  ~PinnedDevice() override {
    for (const auto& [bytes, address] : kept_) cudaFreeHost(address);
  }

  // Making memory known costs the driver milliseconds, so what is given back is kept for the next
  // tensor of about the same size.
  std::byte* allocate(std::int64_t bytes) override {
    const auto found = kept_.lower_bound(bytes);
    if (found != kept_.end() && found->first <= 2 * bytes) {
      std::byte* address = found->second;
      sizes_[address] = found->first;
      kept_.erase(found);
      std::memset(address, 0, static_cast<std::size_t>(bytes));
      return address;
    }
    void* address = nullptr;
    check(cudaHostAlloc(&address, static_cast<std::size_t>(bytes), cudaHostAllocPortable));
    std::memset(address, 0, static_cast<std::size_t>(bytes));
    sizes_[static_cast<std::byte*>(address)] = bytes;
    return static_cast<std::byte*>(address);
  }
  void deallocate(std::byte* address, std::int64_t) noexcept override {
    const auto found = sizes_.find(address);
    kept_.emplace(found->second, address);
    sizes_.erase(found);
  }

  std::byte* reserve(std::int64_t max_bytes) override { return pages_->reserve(max_bytes); }
  void commit(std::byte* address, std::int64_t, std::int64_t bytes) override {
    std::vector<Registered>& registered = registered_[address];
    std::int64_t before = 0;
    for (const Registered& part : registered) before += part.bytes;
    const std::int64_t after = (bytes + page_bytes - 1) / page_bytes * page_bytes;
    if (after <= before) return;
    pages_->commit(address, before, after);
    check(cudaHostRegister(address + before, static_cast<std::size_t>(after - before),
                           cudaHostRegisterPortable));
    registered.push_back({address + before, after - before});
  }
  void release(std::byte* address, std::int64_t max_bytes) noexcept override {
    for (const Registered& part : registered_[address]) cudaHostUnregister(part.address);
    registered_.erase(address);
    pages_->release(address, max_bytes);
  }

 private:
  static constexpr std::int64_t page_bytes = 4096;
  struct Registered {
    std::byte* address = nullptr;
    std::int64_t bytes = 0;
  };

  std::unique_ptr<Device> pages_;
  std::map<std::byte*, std::vector<Registered>> registered_;
  std::map<std::byte*, std::int64_t> sizes_;      // of what is in use
  std::multimap<std::int64_t, std::byte*> kept_;  // by size: what was given back
};

}  // namespace

std::unique_ptr<Device> make_pinned_device() {
  return std::make_unique<PinnedDevice>();
}

}  // namespace switchyard::cuda
