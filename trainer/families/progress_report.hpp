// Says how much of a long copy is done, a line for each tenth.
#pragma once

#include <cstdint>
#include <string>

#include "trainer/checkpoint/checkpoint.hpp"

namespace switchyard {

class ProgressReport {
 public:
  ProgressReport(std::string verb, std::int64_t total, const Report& report)
      : verb_(std::move(verb)), total_(total), report_(report) {}

  void add(std::int64_t amount) {
    done_ += amount;
    if (total_ < worth_telling) return;
    const std::int64_t tenths =
        static_cast<std::int64_t>(10 * static_cast<double>(done_) / static_cast<double>(total_));
    if (tenths <= told_) return;
    told_ = tenths;
    report_(verb_ + " " + std::to_string(10 * tenths) + " %");
  }

 private:
  static constexpr std::int64_t worth_telling = 100'000'000;  // elements: about a second

  std::string verb_;
  std::int64_t total_;
  const Report& report_;
  std::int64_t done_ = 0;
  std::int64_t told_ = 0;
};

}  // namespace switchyard
