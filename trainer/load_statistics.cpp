#include "trainer/load_statistics.hpp"

#include <algorithm>
#include <functional>
#include <numeric>

namespace switchyard {

void LoadStatistics::add(const std::vector<const RouteCounts*>& routes) {
  layers_.resize(routes.size());
  for (std::size_t layer = 0; layer < routes.size(); ++layer) {
    const RouteCounts& route = *routes[layer];
    Layer& sums = layers_[layer];
    sums.rows.resize(route.expert_counts.size());
    std::transform(route.expert_counts.begin(), route.expert_counts.end(), sums.rows.begin(),
                   sums.rows.begin(), std::plus<>{});
    sums.num_dropped += route.num_dropped;
  }
}

ExpertLoad LoadStatistics::over(Group& ranks) const {
  std::vector<std::int64_t> all;  // by layer: rows of its experts, then what it dropped
  for (const Layer& layer : layers_) {
    all.insert(all.end(), layer.rows.begin(), layer.rows.end());
    all.push_back(layer.num_dropped);
  }
  ranks.all_reduce_values(all, ReduceOp::sum);
  ExpertLoad load;
  std::int64_t num_rows = 0, num_dropped = 0;
  auto begin = all.begin();
  for (const Layer& layer : layers_) {
    const auto end = begin + std::ssize(layer.rows);
    const std::int64_t total = std::accumulate(begin, end, std::int64_t{0});
    if (total > 0)
      load.max_over_mean =
          std::max(load.max_over_mean, static_cast<double>(*std::max_element(begin, end)) *
                                           static_cast<double>(layer.rows.size()) /
                                           static_cast<double>(total));
    num_rows += total;
    num_dropped += *end;
    begin = end + 1;
  }
  if (num_dropped > 0)
    load.dropped_fraction =
        static_cast<double>(num_dropped) / static_cast<double>(num_rows + num_dropped);
  return load;
}

}  // namespace switchyard
