// How evenly the experts are used, and what is dropped, from numbers that kernels count.
#pragma once

#include <span>
#include <vector>

#include "parallel/placement.hpp"
#include "tensor/tensor.hpp"

namespace switchyard {

// Rows that ranks receive in a layer, over the mean of the ranks.
struct RowsOfRanks {
  double fullest = 1;  // for which the others wait
  double first = 1;    // of rank 0, whose parts a prediction has
};

// rows_of_place: of a layer, by place, in the order of the ranks. Both 1 without rows.
RowsOfRanks rows_of_ranks(std::span<const std::int64_t> rows_of_place, const Placement& placement);
// The means over layers; both 1 without any.
RowsOfRanks mean_of(std::span<const RowsOfRanks> layers);

// Of a step and a layer, over all ranks.
struct LayerLoad {
  std::vector<std::int64_t> rows;  // by expert
  double max_over_mean = 1;
  RowsOfRanks of_ranks = {};
  double variation = 0;         // standard deviation of the rows, by their mean
  std::int64_t num_idle = 0;    // experts without a row
  double entropy = 0;           // of the router's shares, nats, mean over tokens
  double dropped_fraction = 0;  // of its slots
  double far_fraction = 0;      // of its rows, whose expert is on another node

  std::vector<std::int64_t> percent_of_mean() const;  // the rows, by their mean, rounded
};

// Of a step, over all ranks.
struct ExpertLoad {
  // The largest ratio, over layers, of the fullest expert to the mean. 1 is perfect balance, and
  // the value without experts.
  double max_over_mean = 1;
  double dropped_fraction = 0;   // of all slots (token, choice) of all layers
  std::vector<double> by_layer;  // that ratio of each layer with experts
  std::vector<LayerLoad> layers;
  std::int64_t worst = 0;  // the place of the layer with the largest, among those
};

// loads: as Activations::loads, added up over ranks; may be empty. placements: of the layers with
// experts, or one for all. num_tokens: of the step, over all ranks. The host waits for them.
ExpertLoad read_load(const TensorView& loads, std::span<const Placement> placements,
                     std::int64_t num_tokens);

}  // namespace switchyard
