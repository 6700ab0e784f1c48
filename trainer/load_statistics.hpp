// How evenly the experts are used, and what is dropped: rows by layer and expert and dropped slots
// by layer, summed over the micro-steps of a step and, when asked, over ranks.
#pragma once

#include <cstdint>
#include <vector>

#include "experts/route.hpp"
#include "parallel/group/group.hpp"

namespace switchyard {

// Of the step, over all ranks.
struct ExpertLoad {
  // The largest ratio, over layers, of the fullest expert to the mean. 1 is perfect balance, and
  // the value without experts.
  double max_over_mean = 1;
  double dropped_fraction = 0;  // of all slots (token, choice) of all layers
};

class LoadStatistics {
 public:
  void reset() { layers_.clear(); }
  // The routes of one micro-batch of this rank, by layer with experts.
  void add(const std::vector<const RouteCounts*>& routes);
  // One all-reduce of a whole number for each expert of each layer, and one more a layer.
  // Collective.
  ExpertLoad over(Group& ranks) const;

 private:
  struct Layer {
    std::vector<std::int64_t> rows;  // by expert
    std::int64_t num_dropped = 0;
  };
  std::vector<Layer> layers_;
};

}  // namespace switchyard
