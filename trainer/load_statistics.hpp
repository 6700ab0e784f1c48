// How evenly the experts are used, and what is dropped, from numbers that kernels count.
#pragma once

#include <vector>

#include "tensor/tensor.hpp"

namespace switchyard {

// Of a step, over all ranks.
struct ExpertLoad {
  // The largest ratio, over layers, of the fullest expert to the mean. 1 is perfect balance, and
  // the value without experts.
  double max_over_mean = 1;
  double dropped_fraction = 0;   // of all slots (token, choice) of all layers
  std::vector<double> by_layer;  // that ratio of each layer with experts
};

// loads: i64 [layers with experts, experts + 1]: rows by expert, then what the layer dropped
// (Activations::loads), added up over ranks; may be empty. The host waits for them.
ExpertLoad read_load(const TensorView& loads);

}  // namespace switchyard
