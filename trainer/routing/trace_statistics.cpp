#include "trainer/routing/trace_statistics.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <numeric>
#include <span>

#include "tensor/error.hpp"

namespace switchyard {

namespace {

void add_token(std::span<const std::int32_t> experts, std::span<const float> weights,
               LayerTraffic& layer) {
  const std::int64_t num_experts = std::ssize(layer.loads);
  ++layer.num_tokens;
  for (const std::int32_t a : experts) {
    if (a < 0) {
      ++layer.num_dropped;
      continue;
    }
    ++layer.loads[static_cast<std::size_t>(a)];
    for (const std::int32_t b : experts)
      if (b >= 0 && b != a) ++layer.pairs[static_cast<std::size_t>(a * num_experts + b)];
  }
  const float sum = std::accumulate(weights.begin(), weights.end(), 0.0f);
  if (sum > 0)
    layer.largest_shares += static_cast<double>(*std::ranges::max_element(weights) / sum);
}

}  // namespace

double LayerTraffic::max_over_mean() const {
  const auto total = std::accumulate(loads.begin(), loads.end(), std::int64_t{0});
  if (total == 0) return 1;
  return static_cast<double>(*std::ranges::max_element(loads)) * static_cast<double>(loads.size()) /
         static_cast<double>(total);
}

double LayerTraffic::lift(std::int64_t a, std::int64_t b) const {
  const double product = static_cast<double>(loads[static_cast<std::size_t>(a)]) *
                         static_cast<double>(loads[static_cast<std::size_t>(b)]);
  return product > 0 ? static_cast<double>(pair(a, b)) * static_cast<double>(num_tokens) / product
                     : 0;
}

std::vector<LayerTraffic> traffic_of(const TraceReader& trace) {
  constexpr std::int64_t most_experts = 4096, most_pairs = 1 << 26;  // 512 MiB
  const TraceShape& shape = trace.shape();
  if (shape.num_experts > most_experts ||
      std::ssize(shape.layers) * shape.num_experts * shape.num_experts > most_pairs)
    throw DataError(fmt::format(
        "{}: has {} experts in each of {} layers; pairs of at most {} experts are counted, and {} "
        "of all layers",
        trace.path(), shape.num_experts, shape.layers.size(), most_experts, most_pairs));
  const auto num_experts = static_cast<std::size_t>(shape.num_experts);
  const auto top_k = static_cast<std::size_t>(shape.top_k);
  std::vector<LayerTraffic> layers;
  for (const std::int64_t layer : shape.layers)
    layers.push_back({.layer = layer,
                      .loads = std::vector<std::int64_t>(num_experts),
                      .pairs = std::vector<std::int64_t>(num_experts * num_experts)});
  const PositionRange all{0, shape.sequence_length};
  for (const std::int64_t step : trace.steps()) {
    const std::int64_t num_sequences = std::ssize(trace.sequence_ids(step));
    for (std::int64_t row = 0; row < num_sequences; ++row) {
      const std::vector<std::int32_t> experts =
          trace.read(TraceReader::What::experts, step, row, all);
      const std::vector<float> weights = trace.read_weights(step, row, all);
      for (std::size_t i = 0; i < experts.size(); i += top_k)
        add_token(std::span(experts).subspan(i, top_k), std::span(weights).subspan(i, top_k),
                  layers[i / (experts.size() / layers.size())]);
    }
  }
  return layers;
}

std::string coactivation_csv(const std::vector<LayerTraffic>& layers) {
  std::string text = "layer,first,second,tokens,lift\n";
  for (const LayerTraffic& layer : layers)
    for (std::int64_t a = 0; a < std::ssize(layer.loads); ++a)
      for (std::int64_t b = a + 1; b < std::ssize(layer.loads); ++b)
        fmt::format_to(std::back_inserter(text), "{},{},{},{},{:.6g}\n", layer.layer, a, b,
                       layer.pair(a, b), layer.lift(a, b));
  return text;
}

std::string load_csv(const std::vector<LayerTraffic>& layers) {
  std::string text = "layer,expert,tokens,share\n";
  for (const LayerTraffic& layer : layers) {
    const auto total = std::accumulate(layer.loads.begin(), layer.loads.end(), std::int64_t{0});
    for (std::size_t expert = 0; expert < layer.loads.size(); ++expert)
      fmt::format_to(
          std::back_inserter(text), "{},{},{},{:.6g}\n", layer.layer, expert, layer.loads[expert],
          total > 0 ? static_cast<double>(layer.loads[expert]) / static_cast<double>(total) : 0);
  }
  return text;
}

}  // namespace switchyard
