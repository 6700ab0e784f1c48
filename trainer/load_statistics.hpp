// How evenly the experts are used: slots by layer and expert, summed over the micro-steps of a step
// and over ranks when asked.
#pragma once

#include <cstdint>
#include <vector>

#include "parallel/group/group.hpp"

namespace switchyard {

class LoadStatistics {
 public:
  void reset() { counts_.clear(); }
  // counts: [num_moe_layers][num_experts] of one micro-batch of this rank.
  void add(const std::vector<std::vector<std::int64_t>>& counts);
  // Over all ranks: the largest ratio, over layers, of the fullest expert to the mean. 1 is perfect
  // balance, and the value without experts. Collective.
  double max_over_mean(Group& world) const;

 private:
  std::vector<std::vector<double>> counts_;
};

}  // namespace switchyard
