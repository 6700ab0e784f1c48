#include "trainer/pricing/step_prediction.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>
#include <vector>

#include "tensor/error.hpp"

namespace switchyard {

namespace {

std::string settings_text(const MachineProfile& profile) {
  std::vector<std::string> texts;
  for (const MachineSetting& each : profile.settings)
    texts.push_back(fmt::format("{} x {}", each.ranks_per_host, each.threads));
  return fmt::format("{}", fmt::join(texts, ", "));
}

// How far a setting is from what is asked for: 0 for the same.
double distance(const MachineSetting& setting, const RanksOfHost& ranks, int num_ranks,
                DeviceKind device) {
  const auto between = [](std::int64_t have, std::int64_t want) {
    return want == 0 ? 0.0
                     : std::abs(std::log(static_cast<double>(have) / static_cast<double>(want)));
  };
  double sum = between(setting.ranks_per_host, ranks.ranks_per_host);
  // Without a wish the ranks of a small job share a host.
  if (ranks.ranks_per_host == 0 && device != DeviceKind::cuda && setting.ranks_per_host > num_ranks)
    sum += between(setting.ranks_per_host, num_ranks);
  if (device != DeviceKind::cuda) sum += between(setting.threads, ranks.threads);
  return sum;
}

// Kernels whose rows are those that experts received.
std::vector<bool> units_of_experts(const WorkRecord& record) {
  std::vector<bool> of_experts(record.works().size());
  for (const WorkItem& item : record.items())
    if (item.what == WorkItem::What::kernel && item.part == Part::experts)
      of_experts[static_cast<std::size_t>(item.unit)] = true;
  return of_experts;
}

// Exchanges whose rows the router chooses.
std::vector<bool> units_of_routing(const WorkRecord& record) {
  std::vector<bool> of_routing(record.works().size());
  for (const WorkItem& item : record.items())
    if (item.what == WorkItem::What::exchange &&
        (item.part == Part::dispatch || item.part == Part::combine))
      of_routing[static_cast<std::size_t>(item.unit)] = true;
  return of_routing;
}

// Of each exchange of a record: how many of its ranks share this rank's host.
std::vector<int> partners_on_host(const WorkRecord& record, int rank, std::int64_t ranks_per_host) {
  std::vector<int> partners;
  for (const WorkUnit& unit : record.works())
    if (unit.is_exchange && !is_spill(unit.kind))
      partners.push_back(num_on_host(unit.ranks.seen_from(rank), ranks_per_host));
  return partners;
}

void refuse_gaps(const MachineProfile& profile, const PriceGaps& gaps) {
  if (gaps.extrapolated.empty()) return;
  throw ConfigError(
      fmt::format("{}: these sizes are far outside what it measured; allow it with --extrapolate, "
                  "or measure them:\n  {}",
                  profile.path, fmt::join(gaps.extrapolated, "\n  ")));
}

void add_link_bytes(StepPrediction& prediction, const WorkRecord& record, DeviceKind device) {
  for (const WorkItem& item : record.items()) {
    if (item.what != WorkItem::What::exchange) continue;
    const WorkUnit& unit = record.works()[static_cast<std::size_t>(item.unit)];
    if (is_spill(unit.kind)) continue;
    const LinkBytes bytes = link_bytes(unit, prediction.ranks_per_host, device);
    for (std::size_t link = 0; link < num_link_classes; ++link)
      prediction.link_bytes[link] += static_cast<double>(item.times) * bytes.bytes[link];
  }
}

}  // namespace

const MachineSetting& setting_for(const MachineProfile& profile, int num_ranks,
                                  const RanksOfHost& ranks, bool extrapolate) {
  expect(!profile.settings.empty(), "a profile with a setting");
  const MachineSetting* best = nullptr;
  double least = 0;
  for (const MachineSetting& each : profile.settings) {
    const double away = distance(each, ranks, num_ranks, profile.device);
    const bool is_better = best == nullptr || away < least ||
                           (away == least && each.ranks_per_host > best->ranks_per_host);
    if (!is_better) continue;
    best = &each;
    least = away;
  }
  if (least > 0 && !extrapolate)
    throw ConfigError(fmt::format(
        "{}: it was measured with {} (ranks on a host x threads of a rank), and not with {} x {}; "
        "measure that with `switchyard bench machine`, or allow the nearest with --extrapolate",
        profile.path, settings_text(profile),
        ranks.ranks_per_host > 0 ? ranks.ranks_per_host
                                 : std::min<std::int64_t>(num_ranks, best->ranks_per_host),
        ranks.threads > 0 ? ranks.threads : best->threads));
  return *best;
}

UnitPrices prices_of(const WorkRecord& record, int rank, const MachineProfile& profile,
                     const MachineSetting& setting, const RowsOfRanks& rows, PriceGaps& gaps) {
  UnitPrices prices;
  prices.overlap_slowdown = setting.overlap_slowdown;
  const double fullest = std::max(1.0, rows.fullest);
  const bool is_uneven = fullest > 1;
  const double own = is_uneven && rank == 0 ? rows.first : 1;
  const std::vector<bool> of_experts = units_of_experts(record);
  const std::vector<bool> of_routing = units_of_routing(record);
  for (std::size_t i = 0; i < record.works().size(); ++i) {
    WorkUnit unit = record.works()[i];
    unit.ranks = unit.ranks.seen_from(rank);
    const auto price = [&](double factor) {
      return kernel_seconds(unit, profile, setting, gaps, factor);
    };
    double seconds = 0;
    if (is_spill(unit.kind))
      seconds = spill_seconds(unit, profile, setting, gaps);
    else if (unit.is_exchange)
      seconds = exchange_seconds(unit, profile, setting);
    else
      seconds = price(of_experts[i] ? own : 1);
    if (of_routing[i] && unit.kind == "all_to_all") seconds *= fullest;
    prices.seconds.push_back(seconds);
    if (!is_uneven) continue;
    prices.lag.push_back(of_experts[i] ? std::max(0.0, price(fullest) - seconds) : 0);
  }
  return prices;
}

StepPrediction predict_step(const Plan& plan, DType compute, const MachineProfile& profile,
                            const MachineSetting& setting, const PredictionOptions& options) {
  StepPrediction prediction{.ranks_per_host = setting.ranks_per_host,
                            .threads = setting.threads,
                            .imbalance = std::max(1.0, options.rows.fullest)};
  // Ranks take as long if they share a record and find as many partners on their hosts.
  std::set<std::pair<const WorkRecord*, std::vector<int>>> known;
  for (const RankPlan& rank : plan.ranks) {
    expect(rank.record != nullptr, "a plan with records");
    const WorkRecord& record = *rank.record;
    if (!known.emplace(&record, partners_on_host(record, rank.rank, setting.ranks_per_host)).second)
      continue;
    const UnitPrices prices =
        prices_of(record, rank.rank, profile, setting, options.rows, prediction.gaps);
    const StepTimes times = simulate(record, prices);
    if (rank.rank == 0) prediction.times = times;
    prediction.seconds = std::max(prediction.seconds, times.seconds);
  }
  if (!options.extrapolate) refuse_gaps(profile, prediction.gaps);
  StepTimes& own = prediction.times;
  const double slack = prediction.seconds - own.seconds;
  own.parts[static_cast<std::size_t>(Part::reduction)] += slack;
  own.waits[static_cast<std::size_t>(Part::reduction)] += slack;
  own.seconds = prediction.seconds;
  add_link_bytes(prediction, *plan.ranks.front().record, profile.device);
  prediction.tokens_per_second = static_cast<double>(plan.tokens_per_step) / prediction.seconds;
  prediction.model_flops_per_second = plan.step_flops() / prediction.seconds;
  if (const auto peak = setting.peak_flops_per_second.find(compute);
      peak != setting.peak_flops_per_second.end())
    prediction.utilisation =
        prediction.model_flops_per_second / (peak->second * static_cast<double>(plan.num_ranks));
  return prediction;
}

double young_interval(double checkpoint, double between_failures) {
  return std::sqrt(2 * checkpoint * between_failures);
}

double daly_interval(double checkpoint, double between_failures) {
  if (checkpoint >= 2 * between_failures) return between_failures;
  const double ratio = checkpoint / (2 * between_failures);
  return young_interval(checkpoint, between_failures) * (1 + std::sqrt(ratio) / 3 + ratio / 9) -
         checkpoint;
}

CheckpointCost checkpoint_cost(const Plan& plan, const MachineProfile& profile,
                               std::int64_t ranks_per_host) {
  constexpr double bytes_of_trained = 12;  // value and two moments, fp32
  constexpr double bytes_of_state = 4;
  CheckpointCost cost;
  cost.bytes = bytes_of_trained * static_cast<double>(plan.num_parameters) +
               bytes_of_state * static_cast<double>(plan.num_state_elements);
  const double num_hosts =
      std::ceil(static_cast<double>(plan.num_ranks) / static_cast<double>(ranks_per_host));
  if (profile.disk_write_bytes_per_second > 0)
    cost.seconds = cost.bytes / (num_hosts * profile.disk_write_bytes_per_second);
  constexpr double hour = 3600;
  cost.failure_seconds = hour * profile.hours_between_failures / num_hosts;
  if (cost.seconds > 0 && cost.failure_seconds > 0) {
    cost.young_interval = young_interval(cost.seconds, cost.failure_seconds);
    cost.daly_interval = daly_interval(cost.seconds, cost.failure_seconds);
  }
  return cost;
}

}  // namespace switchyard
