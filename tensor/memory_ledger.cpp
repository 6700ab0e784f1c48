#include "tensor/memory_ledger.hpp"

#include <algorithm>

#include "tensor/error.hpp"

namespace switchyard {

std::string_view name_of(Purpose purpose) {
  switch (purpose) {
    case Purpose::parameter:
      return "parameter";
    case Purpose::state:
      return "state";
    case Purpose::gradient:
      return "gradient";
    case Purpose::optimizer:
      return "optimizer";
    case Purpose::activation:
      return "activation";
    case Purpose::communication:
      return "communication";
    case Purpose::workspace:
      return "workspace";
    case Purpose::spilled:
      return "spilled";
  }
  return "?";
}

std::int64_t MemoryLedger::rounded(std::int64_t bytes) {
  return (bytes + granularity - 1) / granularity * granularity;
}

void MemoryLedger::add(Purpose purpose, std::int64_t bytes) {
  std::int64_t total = 0;
  if (__builtin_add_overflow(live_total_, bytes, &total))
    throw MemoryError(
        "the tensors of a rank add up to more than 2^63 bytes; make the model smaller");
  live_[index(purpose)] += bytes;
  live_total_ = total;
  if (live_total_ <= peak_total_) return;
  peak_total_ = live_total_;
  at_peak_ = live_;
}

void MemoryLedger::remove(Purpose purpose, std::int64_t bytes) {
  expect(live_[index(purpose)] >= bytes, "bytes that were added before");
  live_[index(purpose)] -= bytes;
  live_total_ -= bytes;
}

void MemoryLedger::reserve(std::int64_t bytes) {
  std::int64_t total = 0;
  if (__builtin_add_overflow(reserved_, bytes, &total))
    throw MemoryError(
        "the tensors of a rank could grow to more than 2^63 bytes; make the model smaller");
  reserved_ = total;
  peak_reserved_ = std::max(peak_reserved_, reserved_);
}

void MemoryLedger::unreserve(std::int64_t bytes) {
  expect(reserved_ >= bytes, "bytes that were reserved before");
  reserved_ -= bytes;
}

}  // namespace switchyard
