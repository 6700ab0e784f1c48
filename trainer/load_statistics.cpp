#include "trainer/load_statistics.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>
#include <vector>

#include "kernels/host_copy.hpp"
#include "kernels/routing/routing_figures.hpp"

namespace switchyard {

namespace {

double quotient(double part, double whole) {
  return whole > 0 ? part / whole : 0;
}

// counts: a layer's, as Activations::loads.
LayerLoad load_of(std::span<const std::int64_t> counts, const Placement& placement,
                  std::int64_t num_tokens) {
  LayerLoad load;
  load.rows.resize(static_cast<std::size_t>(placement.num_experts()));
  for (std::int64_t place = 0; place < placement.num_places(); ++place)
    load.rows[static_cast<std::size_t>(placement.expert_at(place))] +=
        counts[static_cast<std::size_t>(place)];
  load.of_ranks =
      rows_of_ranks(counts.first(static_cast<std::size_t>(placement.num_places())), placement);
  const std::span<const std::int64_t> others = counts.last(3);  // dropped, far, entropies
  const auto num_experts = static_cast<double>(load.rows.size());
  const auto total =
      static_cast<double>(std::accumulate(load.rows.begin(), load.rows.end(), std::int64_t{0}));
  const double mean = total / num_experts;
  double squares = 0;
  for (const std::int64_t rows : load.rows)
    squares += (static_cast<double>(rows) - mean) * (static_cast<double>(rows) - mean);
  if (total > 0)
    load.max_over_mean =
        static_cast<double>(*std::ranges::max_element(load.rows)) * num_experts / total;
  load.variation = quotient(std::sqrt(squares / num_experts), mean);
  load.num_idle = std::ranges::count(load.rows, 0);
  load.dropped_fraction =
      quotient(static_cast<double>(others[0]), total + static_cast<double>(others[0]));
  load.far_fraction = quotient(static_cast<double>(others[1]), total);
  load.entropy = quotient(static_cast<double>(others[2]) * kernels::entropy_unit,
                          static_cast<double>(num_tokens));
  return load;
}

}  // namespace

RowsOfRanks rows_of_ranks(std::span<const std::int64_t> rows_of_place, const Placement& placement) {
  std::vector<double> of_rank;
  double total = 0;
  for (int rank = 0; rank < placement.num_ranks(); ++rank) {
    double rows = 0;
    for (std::int64_t i = 0; i < placement.num_places_of(rank); ++i)
      rows += static_cast<double>(
          rows_of_place[static_cast<std::size_t>(placement.first_place(rank) + i)]);
    of_rank.push_back(rows);
    total += rows;
  }
  if (total <= 0) return {};
  const double mean = total / placement.num_ranks();
  return {std::ranges::max(of_rank) / mean, of_rank.front() / mean};
}

RowsOfRanks mean_of(std::span<const RowsOfRanks> layers) {
  if (layers.empty()) return {};
  RowsOfRanks sum{0, 0};
  for (const RowsOfRanks& each : layers) {
    sum.fullest += each.fullest;
    sum.first += each.first;
  }
  const auto count = static_cast<double>(layers.size());
  return {sum.fullest / count, sum.first / count};
}

std::vector<std::int64_t> LayerLoad::percent_of_mean() const {
  const auto total =
      static_cast<double>(std::accumulate(rows.begin(), rows.end(), std::int64_t{0}));
  std::vector<std::int64_t> percent;
  for (const std::int64_t count : rows)
    percent.push_back(std::llround(
        quotient(100 * static_cast<double>(count) * static_cast<double>(rows.size()), total)));
  return percent;
}

ExpertLoad read_load(const TensorView& loads, std::span<const Placement> placements,
                     std::int64_t num_tokens) {
  ExpertLoad load;
  if (loads.empty()) return load;
  std::vector<std::int64_t> counts(static_cast<std::size_t>(loads.numel()));
  kernels::copy_to_host<std::int64_t>(loads, counts);
  const auto row_length = static_cast<std::size_t>(loads.cols());
  double num_rows = 0, num_dropped = 0;
  for (std::size_t begin = 0; begin < counts.size(); begin += row_length) {
    const std::span<const std::int64_t> row = std::span(counts).subspan(begin, row_length);
    const std::size_t placement = placements.size() == 1 ? 0 : load.layers.size();
    load.layers.push_back(load_of(row, placements[placement], num_tokens));
    const LayerLoad& layer = load.layers.back();
    load.by_layer.push_back(layer.max_over_mean);
    num_rows +=
        static_cast<double>(std::accumulate(layer.rows.begin(), layer.rows.end(), std::int64_t{0}));
    num_dropped += static_cast<double>(row[row_length - 3]);
  }
  load.worst = std::ranges::max_element(load.by_layer) - load.by_layer.begin();
  load.max_over_mean = load.by_layer[static_cast<std::size_t>(load.worst)];
  load.dropped_fraction = quotient(num_dropped, num_rows + num_dropped);
  return load;
}

}  // namespace switchyard
