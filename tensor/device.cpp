#include "tensor/device.hpp"

#include <fmt/core.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstring>

#include "cmake/built_with.hpp"
#include "tensor/arena.hpp"
#include "tensor/cuda/cuda_device.hpp"
#include "tensor/error.hpp"
#include "tensor/plan_stream.hpp"

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

std::byte* Device::kernel_scratch(std::int64_t bytes) {
  const bool is_of_card = kind_ == DeviceKind::cuda;
  const std::int64_t wanted = MemoryLedger::rounded(bytes);
  if (wanted <= scratch_bytes_) return is_of_card ? scratch_of_card_ : scratch_.get();
  scratch_.reset();
  if (scratch_of_card_ != nullptr) deallocate(scratch_of_card_, scratch_bytes_);
  scratch_of_card_ = nullptr;
  memory_.remove(Purpose::workspace, scratch_bytes_);
  scratch_bytes_ = 0;
  if (is_of_card) {
    scratch_of_card_ = allocate(wanted);
  } else if (!is_plan()) {
    constexpr std::size_t alignment = 64;  // MemoryLedger::granularity is a multiple of it
    scratch_.reset(
        static_cast<std::byte*>(std::aligned_alloc(alignment, static_cast<std::size_t>(wanted))));
    if (scratch_ == nullptr)
      throw MemoryError(
          fmt::format("the system refused {} bytes of memory for scratch of kernels; {} bytes are "
                      "in use",
                      wanted, memory_.live_total()));
  }
  memory_.add(Purpose::workspace, wanted);
  scratch_bytes_ = wanted;
  return is_of_card ? scratch_of_card_ : scratch_.get();
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
  ~CpuDevice() override {
    if (small_ != nullptr) CpuDevice::release(small_, small_bytes);
  }

  std::byte* allocate(std::int64_t bytes) override {
    if (bytes > largest_small || arena_.next(bytes) + bytes > small_bytes)
      return Device::allocate(bytes);
    const std::int64_t used_before = arena_.high_water();
    if (small_ == nullptr) small_ = reserve(small_bytes);
    const std::int64_t offset = arena_.take(bytes);
    if (arena_.high_water() > used_before) commit(small_, used_before, arena_.high_water());
    if (offset < used_before)  // memory that another tensor had
      std::memset(small_ + offset, 0, static_cast<std::size_t>(bytes));
    return small_ + offset;
  }
  void deallocate(std::byte* address, std::int64_t bytes) noexcept override {
    if (small_ != nullptr && address >= small_ && address < small_ + small_bytes)
      arena_.give_back(address - small_, bytes);
    else
      Device::deallocate(address, bytes);
  }

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

 private:
  // A mapping of its own costs a tensor a page and a system call.
  static constexpr std::int64_t largest_small = 64 << 10;
  static constexpr std::int64_t small_bytes = 64 << 20;  // of address space for all small ones

  std::byte* small_ = nullptr;
  Arena arena_{MemoryLedger::granularity};
};

class PlanDevice final : public Device {
 public:
  explicit PlanDevice(const PlanTarget& target) : Device(target) {}
  std::byte* allocate(std::int64_t) override { return nullptr; }
  void deallocate(std::byte*, std::int64_t) noexcept override {}
  std::byte* reserve(std::int64_t) override { return nullptr; }
  void commit(std::byte*, std::int64_t, std::int64_t) override {}
  void release(std::byte*, std::int64_t) noexcept override {}
};

}  // namespace

namespace {

std::unique_ptr<Stream> make_plan_stream(double Work::*figure, double per_second) {
  if (per_second == 0) return std::make_unique<ImmediateStream>();
  return std::make_unique<PlanStream>(figure, per_second);
}

}  // namespace

Device::Device(const PlanTarget& target)
    : Device(DeviceKind::plan, make_plan_stream(&Work::flops, target.rank_flops),
             make_plan_stream(&Work::wire_bytes, target.link_bytes)) {
  target_ = target;
  for (Stream* stream : {compute_stream_.get(), communication_stream_.get()})
    if (auto* const clock = dynamic_cast<PlanStream*>(stream)) clock->follow(profile_);
}

std::byte* Device::allocate(std::int64_t bytes) {
  std::byte* address = reserve(bytes);
  try {
    commit(address, 0, bytes);
  } catch (...) {
    release(address, bytes);
    throw;
  }
  return address;
}

void Device::deallocate(std::byte* address, std::int64_t bytes) noexcept {
  release(address, bytes);
}

std::unique_ptr<Device> make_cpu_device() {
  return std::make_unique<CpuDevice>();
}
std::unique_ptr<Device> make_plan_device(const PlanTarget& target) {
  return std::make_unique<PlanDevice>(target);
}

std::unique_ptr<Device> make_device(DeviceKind kind, int local_rank) {
  if (kind == DeviceKind::cpu) return make_cpu_device();
  if constexpr (built_with_cuda)
    if (kind == DeviceKind::cuda) return make_cuda_device(local_rank);
  throw ConfigError(
      fmt::format("run.device: this build has no device {}; write cpu or auto{}", name_of(kind),
                  kind == DeviceKind::cuda
                      ? ", or build it where the CUDA toolkit is installed (cmake --preset cuda)"
                      : ""));
}

}  // namespace switchyard
