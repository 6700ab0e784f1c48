#include "trainer/load_statistics.hpp"

#include <algorithm>
#include <numeric>
#include <vector>

#include "kernels/host_copy.hpp"

namespace switchyard {

ExpertLoad read_load(const TensorView& loads) {
  ExpertLoad load;
  if (loads.empty()) return load;
  std::vector<std::int64_t> counts(static_cast<std::size_t>(loads.numel()));
  kernels::copy_to_host<std::int64_t>(loads, counts);
  const std::int64_t num_experts = loads.cols() - 1;
  std::int64_t num_rows = 0, num_dropped = 0;
  for (auto begin = counts.begin(); begin != counts.end(); begin += loads.cols()) {
    const auto end = begin + num_experts;
    const std::int64_t total = std::accumulate(begin, end, std::int64_t{0});
    const double max_over_mean = total > 0 ? static_cast<double>(*std::max_element(begin, end)) *
                                                 static_cast<double>(num_experts) /
                                                 static_cast<double>(total)
                                           : 1.0;
    load.max_over_mean = std::max(load.max_over_mean, max_over_mean);
    load.by_layer.push_back(max_over_mean);
    num_rows += total;
    num_dropped += *end;
  }
  if (num_dropped > 0)
    load.dropped_fraction =
        static_cast<double>(num_dropped) / static_cast<double>(num_rows + num_dropped);
  return load;
}

}  // namespace switchyard
