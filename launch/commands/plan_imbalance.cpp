#include "launch/commands/plan_imbalance.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <numeric>
#include <vector>

#include "data/files/atomic_file.hpp"
#include "tensor/error.hpp"
#include "trainer/placement/layer_placements.hpp"
#include "trainer/pricing/imbalance.hpp"
#include "trainer/routing/trace_statistics.hpp"

namespace switchyard {

namespace {

using Loads = std::vector<std::vector<std::int64_t>>;  // by layer and expert

// Of the last step of a run with rows of its layers.
Loads load_of_run(const std::string& path) {
  constexpr std::int64_t most_bytes = std::int64_t{1} << 30;
  const std::string text = read_file(path, most_bytes);
  Loads loads;
  std::int64_t last_step = -1;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const std::string line = text.substr(begin, end - begin);
    begin = end + 1;
    if (line.find("\"event\": \"layer\"") == std::string::npos) continue;
    const auto json = nlohmann::json::parse(line, nullptr, false);
    if (!json.is_object() || !json.contains("load_percent") || !json.contains("step")) continue;
    const auto step = json["step"].get<std::int64_t>();
    if (step != last_step) loads.clear();
    last_step = step;
    loads.push_back(json["load_percent"].get<std::vector<std::int64_t>>());
  }
  if (loads.empty())
    throw ConfigError(fmt::format(
        "--imbalance: {} has no rows of layers with experts (metrics.layers_every)", path));
  return loads;
}

Loads load_of_trace(const std::string& path) {
  Loads loads;
  for (const LayerTraffic& layer : traffic_of(TraceReader(path))) loads.push_back(layer.loads);
  return loads;
}

double max_over_mean(const std::vector<std::int64_t>& rows) {
  const auto total =
      static_cast<double>(std::accumulate(rows.begin(), rows.end(), std::int64_t{0}));
  if (total <= 0) return 1;
  return static_cast<double>(std::ranges::max(rows)) * static_cast<double>(rows.size()) / total;
}

Imbalance of_same_experts(const Loads& loads, const Placement& placement, const std::string& from) {
  std::vector<RowsOfRanks> layers;
  for (const std::vector<std::int64_t>& of_expert : loads) {
    std::vector<std::int64_t> of_place;
    for (std::int64_t place = 0; place < placement.num_places(); ++place)
      of_place.push_back(placement.share_of(
          of_expert[static_cast<std::size_t>(placement.expert_at(place))], place));
    layers.push_back(rows_of_ranks(of_place, placement));
  }
  return {mean_of(layers),
          fmt::format("the load of {}, mean of {} layers, where its experts live in this layout",
                      from, layers.size())};
}

Imbalance of_other_experts(const Loads& loads, const Config& config, const std::string& from) {
  double load = 0;
  for (const std::vector<std::int64_t>& rows : loads)
    load += max_over_mean(rows) / static_cast<double>(loads.size());
  const auto num_recorded = static_cast<std::int64_t>(loads.front().size());
  const std::int64_t num_experts = config.experts.num_experts;
  const double concentration = concentration_of_load(load, num_recorded);
  return {{.fullest = dirichlet_max_over_mean(concentration, num_experts, config.parallel.expert)},
          fmt::format("from {}, whose fullest of {} experts had {:.3g} x the mean: Dirichlet of "
                      "concentration {:.3g}",
                      from, num_recorded, load, concentration)};
}

}  // namespace

Imbalance read_imbalance(const std::string& wanted, const Config& config) {
  if (wanted.empty() || wanted == "balanced") return {{}, "balanced"};
  double factor = 0;
  const char* const end = wanted.data() + wanted.size();
  const auto [stop, error] = std::from_chars(wanted.data(), end, factor);
  if (error == std::errc() && stop == end) {
    if (!(factor >= 1) || !std::isfinite(factor))
      throw ConfigError(fmt::format("--imbalance {}: it must be at least 1", wanted));
    return {{.fullest = factor}, "as --imbalance says"};
  }
  std::error_code ignored;
  if (!std::filesystem::exists(wanted, ignored))
    throw ConfigError(
        fmt::format("--imbalance {}: expected balanced, a factor of at least 1, the "
                    "folder of a run, or a trace of routing",
                    wanted));
  const ExpertsConfig& experts = config.experts;
  if (experts.num_experts == 0 || config.parallel.expert < 2)
    return {{}, "every rank has all experts"};
  const std::string metrics = wanted + "/metrics.jsonl";
  const Loads loads =
      std::filesystem::exists(metrics, ignored) ? load_of_run(metrics) : load_of_trace(wanted);
  const bool has_same = std::ranges::all_of(
      loads, [&](const auto& rows) { return std::ssize(rows) == experts.num_experts; });
  if (has_same)
    return of_same_experts(loads, placement_of(experts, config.parallel.expert), wanted);
  return of_other_experts(loads, config, wanted);
}

}  // namespace switchyard
