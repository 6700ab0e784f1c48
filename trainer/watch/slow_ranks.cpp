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

std::vector<std::string> SlowRanks::end_step(Group& world) {
  if (every_ == 0 || world.size() == 1) return {};
  computed_ += (steady_nanoseconds() - begun_) - (log_.waited_ns() - waited_at_begin_);
  if (++num_steps_ < every_) return {};
  const std::int64_t mine = computed_ / num_steps_;
  num_steps_ = computed_ = 0;
  std::vector<std::int64_t> all(static_cast<std::size_t>(world.size()));
  world.all_gather_values({&mine, 1}, all);
  std::vector<double> seconds(all.size());
  std::transform(all.begin(), all.end(), seconds.begin(),
                 [](std::int64_t ns) { return static_cast<double>(ns) * 1e-9; });
  std::vector<std::string> sentences;
  const Topology& topology = world.topology();
  for (const SlowRank& slow : find_slow(seconds))
    sentences.push_back(describe(slow, topology.name_of(topology.host_of(slow.rank))));
  return sentences;
}

}  // namespace switchyard
