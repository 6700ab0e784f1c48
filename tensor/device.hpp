// A device owns the memory of tensors, counts it in a ledger, and carries its streams and the
// profile of the work done on it. `cpu` is this process's memory. `plan` has no memory: its tensors
// have addresses that nobody may read, its kernels only record their work, and that is how
// `switchyard plan` runs the trainer's own code for any rank of any layout. `cuda` is an NVIDIA
// card (tensor/cuda/).
//
// The device outlives every tensor made on it, and is passed to whoever allocates.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <string_view>
#include <typeindex>
#include <utility>

#include "tensor/memory_ledger.hpp"
#include "tensor/profile.hpp"
#include "tensor/stream.hpp"

namespace switchyard {

enum class DeviceKind : std::uint8_t { cpu, cuda, plan, fenced };
std::string_view name_of(DeviceKind kind);

// The machine that a plan is for.
struct PlanTarget {
  DeviceKind device = DeviceKind::cpu;
  int num_threads = 0;  // of its kernels; 0: as many as those of this process
  // With both the device's streams have clocks (tensor/plan_stream.hpp), which go by them.
  double rank_flops = 0;  // FLOP/s that a rank attains
  double link_bytes = 0;  // bytes/s that it sends
};

class Device {
 public:
  virtual ~Device() = default;
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  DeviceKind kind() const { return kind_; }
  bool is_plan() const { return kind_ == DeviceKind::plan; }
  // What a plan is for; on other devices, what they are.
  const PlanTarget& target() const { return target_; }
  // Whether the host can touch the memory of this device's tensors.
  bool is_host_memory() const { return kind_ == DeviceKind::cpu; }
  // Whether tensors lie in memory of their own, apart from the host's: then what the host gives and
  // takes goes through copies.
  bool has_own_memory() const { return kind_ == DeviceKind::cuda || kind_ == DeviceKind::fenced; }
  // Memory of the host that copies of this device reach best (pinned, for a GPU). The device itself
  // where it has none of its own.
  virtual Device& host() { return *this; }
  // From a tensor's address to the one that kernels use; not 0 for `fenced` alone.
  std::ptrdiff_t kernel_offset() const { return kernel_offset_; }
  MemoryLedger& memory() { return memory_; }
  Profile& profile() { return profile_; }
  // Kernels run on the first, exchanges on the second.
  Stream& compute_stream() { return *compute_stream_; }
  Stream& communication_stream() { return *communication_stream_; }

  // Memory that the kernels of this device share, one call at a time: of the card for `cuda`, of
  // the host for all others. At least `bytes`, 64-byte aligned, its contents undefined. It is
  // counted as workspace, grows when more is asked for, which moves it, and stays. Null on the plan
  // device.
  std::byte* kernel_scratch(std::int64_t bytes);

  // What the kernels of one library keep for this device between calls (its handle, what it chose):
  // one object of each type, made at its first use.
  template <class State>
  State& kernel_state() {
    std::shared_ptr<void>& state = kernel_states_[std::type_index(typeid(State))];
    if (state == nullptr) state = std::make_shared<State>();
    return *static_cast<State*>(state.get());
  }

  // Memory of a tensor that does not grow: zeros, aligned to MemoryLedger::granularity. Small ones
  // share mappings. Null on the plan device. MemoryError with the sizes when the system refuses.
  virtual std::byte* allocate(std::int64_t bytes);
  virtual void deallocate(std::byte* address, std::int64_t bytes) noexcept;
  // Address space for `max_bytes`, none of it usable or counted yet. Null on the plan device.
  // Throws MemoryError with the sizes when the system refuses.
  virtual std::byte* reserve(std::int64_t max_bytes) = 0;
  // Makes the first `bytes` of a reservation usable; the bytes before keep their contents.
  virtual void commit(std::byte* address, std::int64_t committed, std::int64_t bytes) = 0;
  virtual void release(std::byte* address, std::int64_t max_bytes) noexcept = 0;

 protected:
  // A device whose work runs at once.
  explicit Device(DeviceKind kind)
      : Device(kind, std::make_unique<ImmediateStream>(), std::make_unique<ImmediateStream>()) {}
  // The plan device of a target.
  explicit Device(const PlanTarget& target);
  Device(DeviceKind kind, std::unique_ptr<Stream> compute, std::unique_ptr<Stream> communication,
         std::ptrdiff_t kernel_offset = 0)
      : kind_(kind),
        kernel_offset_(kernel_offset),
        target_{.device = kind == DeviceKind::cuda ? kind : DeviceKind::cpu, .num_threads = 0},
        compute_stream_(std::move(compute)),
        communication_stream_(std::move(communication)) {}

 private:
  DeviceKind kind_;
  std::ptrdiff_t kernel_offset_ = 0;
  PlanTarget target_;
  std::unique_ptr<Stream> compute_stream_;
  std::unique_ptr<Stream> communication_stream_;
  MemoryLedger memory_;
  Profile profile_{*compute_stream_};
  struct Free {
    void operator()(std::byte* address) const { std::free(address); }
  };
  std::unique_ptr<std::byte, Free> scratch_;
  std::byte* scratch_of_card_ = nullptr;  // goes with the card's memory
  std::int64_t scratch_bytes_ = 0;
  std::map<std::type_index, std::shared_ptr<void>> kernel_states_;
};

std::unique_ptr<Device> make_cpu_device();
std::unique_ptr<Device> make_plan_device(const PlanTarget& target = {});

// The device that this rank computes on. local_rank: among the ranks of its host, which share the
// host's cards: rank i takes card i. ConfigError for a kind that this build has not.
std::unique_ptr<Device> make_device(DeviceKind kind, int local_rank);

}  // namespace switchyard
