// Bytes in use on one device, by purpose, and the address space that is kept for more. The CPU, a
// GPU and the plan device keep the same ledger with the same rounding, so what a plan predicts can
// be compared with what a run reports.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace switchyard {

enum class Purpose : std::uint8_t {
  parameter,  // fp32 values and the packed copies that products read
  state,      // values that are saved and not trained
  gradient,
  optimizer,      // AdamW moments
  activation,     // what a backward pass reads, and what flows between layers
  communication,  // staging of exchanges
  workspace,      // scratch of one kernel or one layer
  spilled,        // records of layers in the memory store, between forward and backward
};
inline constexpr int num_purposes = 8;
std::string_view name_of(Purpose purpose);

class MemoryLedger {
 public:
  static constexpr std::int64_t granularity = 64;  // bytes; every allocation is rounded up to it
  static std::int64_t rounded(std::int64_t bytes);

  void add(Purpose purpose, std::int64_t bytes);  // bytes already rounded; MemoryError past 2^63
  void remove(Purpose purpose, std::int64_t bytes);
  // Address space, likewise: of a tensor that grows, room for the most that it can become.
  void reserve(std::int64_t bytes);
  void unreserve(std::int64_t bytes);

  std::int64_t live(Purpose purpose) const { return live_[index(purpose)]; }
  std::int64_t live_total() const { return live_total_; }
  std::int64_t peak_total() const { return peak_total_; }
  std::int64_t reserved() const { return reserved_; }
  std::int64_t peak_reserved() const { return peak_reserved_; }
  // Bytes by purpose at the moment of the peak; they add up to peak_total().
  std::int64_t at_peak(Purpose purpose) const { return at_peak_[index(purpose)]; }

 private:
  static std::size_t index(Purpose purpose) { return static_cast<std::size_t>(purpose); }
  std::array<std::int64_t, num_purposes> live_{};
  std::array<std::int64_t, num_purposes> at_peak_{};
  std::int64_t live_total_ = 0;
  std::int64_t peak_total_ = 0;
  std::int64_t reserved_ = 0;
  std::int64_t peak_reserved_ = 0;
};

}  // namespace switchyard
