// Passes progress of prepare() on, at most ten times a second and once at the end of a phase.
// Private to data/prepare.
#pragma once

#include <chrono>
#include <cstdint>
#include <string_view>

#include "data/prepare/prepare.hpp"

namespace switchyard {

class ProgressLine {
 public:
  using Clock = std::chrono::steady_clock;

  ProgressLine(const PrepareReports& reports, std::int64_t bytes_total) : reports_(reports) {
    state_.bytes_total = bytes_total;
  }
  void begin(std::string_view phase) {
    state_ = {.phase = phase, .bytes_total = state_.bytes_total};
    show();
  }
  void update(std::int64_t num_documents, std::int64_t num_tokens, std::int64_t bytes_read) {
    state_.num_documents = num_documents;
    state_.num_tokens = num_tokens;
    state_.bytes_read = bytes_read;
    if (Clock::now() - last_ >= std::chrono::milliseconds(100)) show();
  }
  double seconds() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }
  void show() {
    last_ = Clock::now();
    state_.seconds = std::chrono::duration<double>(last_ - start_).count();
    if (reports_.progress) reports_.progress(state_);
  }

 private:
  const PrepareReports& reports_;
  PrepareProgress state_;
  Clock::time_point start_ = Clock::now();
  Clock::time_point last_ = start_;
};

}  // namespace switchyard
