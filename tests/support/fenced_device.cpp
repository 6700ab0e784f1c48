#include "tests/support/fenced_device.hpp"

#include <execinfo.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "tensor/error.hpp"

namespace switchyard::test {

namespace {

constexpr std::int64_t page_bytes = 4096;
// Address space costs nothing; it is not used again within a device.
constexpr std::int64_t fence_bytes = std::int64_t{1} << 40;

std::int64_t rounded_to_pages(std::int64_t bytes) {
  return (bytes + page_bytes - 1) / page_bytes * page_bytes;
}

// The fences of the process, for the signal's handler.
constexpr int max_fences = 64;
std::array<std::atomic<std::uintptr_t>, max_fences> fences{};

void tell_and_die(int, siginfo_t* info, void*) {
  const auto address = reinterpret_cast<std::uintptr_t>(info->si_addr);
  for (const auto& fence : fences)
    if (fence != 0 && address >= fence &&
        address - fence < static_cast<std::uintptr_t>(fence_bytes)) {
      std::array<char, 128> text{};
      const int length = std::snprintf(
          text.data(), text.size(), "host access to fenced memory at %p, from:\n", info->si_addr);
      if (::write(STDERR_FILENO, text.data(), static_cast<std::size_t>(length)) < 0) break;
      std::array<void*, 32> stack{};
      ::backtrace_symbols_fd(stack.data(), ::backtrace(stack.data(), stack.size()), STDERR_FILENO);
      break;
    }
  ::signal(SIGSEGV, SIG_DFL);
  ::raise(SIGSEGV);
}

void watch_for_hits() {
  std::array<void*, 1> loaded{};
  ::backtrace(loaded.data(), 1);  // loads what the handler must not
  struct sigaction action {};
  action.sa_sigaction = tell_and_die;
  action.sa_flags = SA_SIGINFO;
  ::sigaction(SIGSEGV, &action, nullptr);
}

std::byte* map(std::int64_t bytes) {
  void* address = ::mmap(nullptr, static_cast<std::size_t>(bytes), PROT_NONE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  expect(address != MAP_FAILED, "address space for a fenced device");
  return static_cast<std::byte*>(address);
}

// As work runs at once there is nothing to wait for, but it is counted.
class CountingStream final : public Stream {
 public:
  Event record() override { return stream_.record(); }
  void wait_host() override { ++num_waits_; }
  TimePoint mark() override { return stream_.mark(); }
  bool has_come(TimePoint point) override { return stream_.has_come(point); }
  double seconds_between(TimePoint from, TimePoint to) override {
    return stream_.seconds_between(from, to);
  }
  void forget_before(TimePoint first_kept) override { stream_.forget_before(first_kept); }
  std::int64_t num_waits() const { return num_waits_; }

 private:
  ImmediateStream stream_;
  std::int64_t num_waits_ = 0;
};

class FencedDevice final : public Device {
 public:
  FencedDevice()
      : Device(DeviceKind::fenced, std::make_unique<CountingStream>(),
               std::make_unique<ImmediateStream>(), fence_bytes),
        base_(map(2 * fence_bytes)) {
    watch_for_hits();
    for (auto& fence : fences) {
      std::uintptr_t none = 0;
      if (fence.compare_exchange_strong(none, reinterpret_cast<std::uintptr_t>(base_))) return;
    }
  }
  ~FencedDevice() override {
    for (auto& fence : fences)
      if (fence == reinterpret_cast<std::uintptr_t>(base_)) fence = 0;
    ::munmap(base_, static_cast<std::size_t>(2 * fence_bytes));
  }

  Device& host() override { return *host_; }

  std::byte* reserve(std::int64_t max_bytes) override {
    expect(rounded_to_pages(max_bytes) <= fence_bytes - used_, "tensors of at most a TiB in all");
    std::byte* address = base_ + used_;
    used_ += rounded_to_pages(max_bytes);
    return address;
  }
  void commit(std::byte* address, std::int64_t, std::int64_t bytes) override {
    expect(::mprotect(address + kernel_offset(), static_cast<std::size_t>(rounded_to_pages(bytes)),
                      PROT_READ | PROT_WRITE) == 0,
           "memory for a fenced tensor");
  }
  void release(std::byte* address, std::int64_t max_bytes) noexcept override {
    const auto bytes = static_cast<std::size_t>(rounded_to_pages(max_bytes));
    ::madvise(address + kernel_offset(), bytes, MADV_DONTNEED);
    ::mprotect(address + kernel_offset(), bytes, PROT_NONE);
  }

 private:
  std::byte* base_;
  std::int64_t used_ = 0;
  std::unique_ptr<Device> host_ = make_cpu_device();
};

}  // namespace

std::unique_ptr<Device> make_fenced_device() {
  return std::make_unique<FencedDevice>();
}

std::int64_t num_host_waits(Device& fenced) {
  return dynamic_cast<CountingStream&>(fenced.compute_stream()).num_waits();
}

}  // namespace switchyard::test
