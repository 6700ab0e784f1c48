#include "trainer/watch/slow_ranks.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <chrono>

namespace switchyard {

namespace {

constexpr double slow_ratio = 1.25;
constexpr double slow_seconds = 0.005;

std::int64_t steady_nanoseconds() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace

std::vector<SlowRank> find_slow(std::span<const double> seconds) {
  std::vector<double> sorted(seconds.begin(), seconds.end());
  std::sort(sorted.begin(), sorted.end());
  std::vector<SlowRank> slow;
  if (sorted.empty()) return slow;
  const double median = sorted[(sorted.size() - 1) / 2];
  for (std::size_t rank = 0; rank < seconds.size(); ++rank)
    if (seconds[rank] > slow_ratio * median && seconds[rank] > median + slow_seconds)
      slow.push_back({static_cast<int>(rank), seconds[rank], median});
  return slow;
}

std::string describe(const SlowRank& slow, const std::string& host) {
  return fmt::format(
      "rank {} ({}) is slow: its computation takes {:.3g} s a step, the median {:.3g} s", slow.rank,
      host, slow.seconds, slow.median);
}

void SlowRanks::begin_step() {
  begun_ = steady_nanoseconds();
  waited_at_begin_ = log_.waited_ns();
}

void SlowRanks::end_step() {
  computed_ += (steady_nanoseconds() - begun_) - (log_.waited_ns() - waited_at_begin_);
  ++num_steps_;
}

double SlowRanks::seconds_a_step() const {
  return num_steps_ == 0 ? 0.0
                         : static_cast<double>(computed_) * 1e-9 / static_cast<double>(num_steps_);
}

std::vector<std::string> SlowRanks::compare(std::span<const double> seconds_of_ranks,
                                            const Topology& topology) {
  std::vector<std::string> sentences;
  if (every_ == 0 || num_steps_ < every_) return sentences;
  num_steps_ = computed_ = 0;
  if (seconds_of_ranks.size() == 1) return sentences;
  for (const SlowRank& slow : find_slow(seconds_of_ranks))
    sentences.push_back(describe(slow, topology.name_of(topology.host_of(slow.rank))));
  return sentences;
}

}  // namespace switchyard
