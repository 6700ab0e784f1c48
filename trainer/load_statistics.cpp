#include "trainer/load_statistics.hpp"

#include <algorithm>
#include <numeric>

namespace switchyard {

void LoadStatistics::add(const std::vector<std::vector<std::int64_t>>& counts) {
  counts_.resize(counts.size());
  for (std::size_t layer = 0; layer < counts.size(); ++layer) {
    counts_[layer].resize(counts[layer].size());
    std::transform(counts[layer].begin(), counts[layer].end(), counts_[layer].begin(),
                   counts_[layer].begin(),
                   [](std::int64_t more, double sum) { return sum + static_cast<double>(more); });
  }
}

double LoadStatistics::max_over_mean(Group& world) const {
  std::vector<double> all;
  for (const auto& layer : counts_) all.insert(all.end(), layer.begin(), layer.end());
  if (all.empty()) return 1.0;
  world.all_reduce_values(all, ReduceOp::sum);
  double worst = 1.0;
  auto begin = all.begin();
  for (const auto& layer : counts_) {
    const auto end = begin + static_cast<std::ptrdiff_t>(layer.size());
    const double total = std::accumulate(begin, end, 0.0);
    if (total > 0)
      worst = std::max(worst,
                       *std::max_element(begin, end) * static_cast<double>(layer.size()) / total);
    begin = end;
  }
  return worst;
}

}  // namespace switchyard
