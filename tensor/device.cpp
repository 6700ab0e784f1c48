#include "tensor/device.hpp"

#include <fmt/core.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstring>

#include "tensor/error.hpp"

namespace switchyard {

std::string_view name_of(DeviceKind kind) {
  switch (kind) {
    case DeviceKind::cpu:
      return "cpu";
    case DeviceKind::cuda:
      return "cuda";
    case DeviceKind::plan:
      return "plan";
    case DeviceKind::fenced:
      return "fenced";
  }
  return "?";
}

namespace {

constexpr std::int64_t page_bytes = 4096;
constexpr std::int64_t huge_page_bytes = 2 << 20;

std::size_t rounded_to_pages(std::int64_t bytes) {
  return static_cast<std::size_t>((bytes + page_bytes - 1) / page_bytes * page_bytes);
}

// Anonymous mappings: page-aligned, zero when first touched, and growable in place because the
// whole range is reserved first and made accessible piece by piece.
class CpuDevice final : public Device {
 public:
  CpuDevice() : Device(DeviceKind::cpu) {}

  std::byte* reserve(std::int64_t max_bytes) override {
    void* address = mmap(nullptr, rounded_to_pages(max_bytes), PROT_NONE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (address == MAP_FAILED)
      throw MemoryError(
          fmt::format("the system refused to reserve {} bytes ({}); {} bytes are in use", max_bytes,
                      std::strerror(errno), memory().live_total()));
    if (max_bytes >= huge_page_bytes)
      madvise(address, rounded_to_pages(max_bytes), MADV_HUGEPAGE);  // advice only: may fail
    return static_cast<std::byte*>(address);
  }

  void commit(std::byte* address, std::int64_t, std::int64_t bytes) override {
    if (mprotect(address, rounded_to_pages(bytes), PROT_READ | PROT_WRITE) != 0)
      throw MemoryError(fmt::format(
          "the system refused {} bytes of memory ({}); {} bytes are in use. Use more ranks or a "
          "smaller train.micro_batch",
          bytes, std::strerror(errno), memory().live_total()));
  }

  void release(std::byte* address, std::int64_t max_bytes) noexcept override {
    munmap(address, rounded_to_pages(max_bytes));
  }
};

class PlanDevice final : public Device {
 public:
  PlanDevice() : Device(DeviceKind::plan) {}
  std::byte* reserve(std::int64_t) override { return nullptr; }
  void commit(std::byte*, std::int64_t, std::int64_t) override {}
  void release(std::byte*, std::int64_t) noexcept override {}
};

}  // namespace

std::unique_ptr<Device> make_cpu_device() {
  return std::make_unique<CpuDevice>();
}
std::unique_ptr<Device> make_plan_device() {
  return std::make_unique<PlanDevice>();
}

}  // namespace switchyard
