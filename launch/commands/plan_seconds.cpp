#include "launch/commands/plan_seconds.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>
#include <vector>

#include "launch/commands/table_text.hpp"
#include "trainer/number_text.hpp"

namespace switchyard {

namespace {

constexpr double hour = 3600;

std::string parts_text(const StepTimes& times) {
  const Unit unit = time_unit(times.seconds);
  std::vector<std::vector<std::string>> rows = {
      {"part", std::string(unit.name), "% of step", "waiting", "exchanges"}};
  const auto add = [&](std::string_view name, double seconds, double waits, double exchanges) {
    rows.push_back({std::string(name), fmt::format("{:.3f}", seconds / unit.size),
                    fmt::format("{:.1f}", 100 * seconds / times.seconds),
                    fmt::format("{:.3f}", waits / unit.size),
                    fmt::format("{:.3f}", exchanges / unit.size)});
  };
  for (std::size_t part = 0; part < num_parts; ++part)
    if (times.parts[part] > 0 || times.exchanges[part] > 0)
      add(name_of(static_cast<Part>(part)), times.parts[part], times.waits[part],
          times.exchanges[part]);
  add("step", times.seconds, times.wait_seconds(), times.exchange_seconds());
  return table_text(rows);
}

std::string checkpoint_text(const CheckpointCost& cost) {
  std::string text = fmt::format("Checkpoint: {}", format_bytes(cost.bytes));
  if (cost.seconds > 0) text += fmt::format(", {:.3g} s", cost.seconds);
  if (cost.daly_interval > 0)
    text += fmt::format(
        "; with a failure each {:.3g} h, best after {:.3g} s of work (Young) or {:.3g} s (Daly)",
        cost.failure_seconds / hour, cost.young_interval, cost.daly_interval);
  else
    text += "; the profile does not tell how often hosts fail, so no best interval";
  return text + "\n";
}

struct RunCost {
  double hours = 0;
  double rank_hours = 0;
  double kilowatt_hours = 0;  // 0: not told
};
RunCost run_cost(const Plan& plan, const PlannedSeconds& seconds) {
  RunCost cost;
  cost.hours = seconds.num_tokens / seconds.step.tokens_per_second / hour;
  cost.rank_hours = cost.hours * plan.num_ranks;
  cost.kilowatt_hours = cost.rank_hours * seconds.profile.watts_of_rank / 1000;
  return cost;
}

std::string run_text(const Plan& plan, const PlannedSeconds& seconds) {
  if (seconds.num_tokens == 0) return {};
  const RunCost cost = run_cost(plan, seconds);
  return fmt::format("{} tokens: {:.4g} h, {:.4g} {} hours{}\n", format_count(seconds.num_tokens),
                     cost.hours, cost.rank_hours,
                     seconds.profile.device == DeviceKind::cuda ? "GPU" : "rank",
                     cost.kilowatt_hours > 0 ? fmt::format(", {:.4g} kWh", cost.kilowatt_hours)
                                             : "; the profile does not tell the power");
}

std::string gaps_text(const PlannedSeconds& seconds) {
  std::string text;
  const PriceGaps& gaps = seconds.step.gaps;
  if (!gaps.as_copies.empty())
    text += fmt::format("Without rates of their own, taken as copies: {}\n",
                        fmt::join(gaps.as_copies, ", "));
  if (!gaps.extrapolated.empty())
    text += fmt::format("Extrapolated: {}\n", fmt::join(gaps.extrapolated, "; "));
  return text;
}

}  // namespace

std::string seconds_text(const Plan& plan, const PlannedSeconds& seconds) {
  const StepPrediction& step = seconds.step;
  std::string text = fmt::format(
      "Seconds of one step, foretold by {} ({}; {} ranks on a host{}):\n{}", seconds.profile.path,
      seconds.profile.name, step.ranks_per_host,
      seconds.profile.device == DeviceKind::cuda ? "" : fmt::format(" x {} threads", step.threads),
      parts_text(step.times));
  text += fmt::format(
      "{:.4g} tokens/s, {:.4g} TFLOP/s of the model{}\n", step.tokens_per_second,
      step.model_flops_per_second / 1e12,
      step.utilisation > 0
          ? fmt::format(", {:.1f} % of the most that products attain", 100 * step.utilisation)
          : "");
  const double exchanges = step.times.exchange_seconds();
  if (exchanges > 0)
    text += fmt::format(
        "Of {:.4g} s of exchanges {:.1f} % are hidden behind computation; a rank sends {} within "
        "its host, {} to others\n",
        exchanges, 100 * step.times.hidden_seconds() / exchanges, format_bytes(step.link_bytes[0]),
        format_bytes(step.link_bytes[1]));
  if (step.imbalance > 1)
    text += fmt::format("The fullest rank of a layer is taken to receive {:.3g} x the mean: {}\n",
                        step.imbalance, seconds.imbalance.reason);
  return text + checkpoint_text(seconds.checkpoint) + run_text(plan, seconds) + gaps_text(seconds);
}

std::string seconds_json(const Plan& plan, const PlannedSeconds& seconds) {
  const StepPrediction& step = seconds.step;
  nlohmann::ordered_json parts;
  for (std::size_t part = 0; part < num_parts; ++part)
    if (step.times.parts[part] > 0 || step.times.exchanges[part] > 0)
      parts[std::string(name_of(static_cast<Part>(part)))] = {
          {"seconds", step.times.parts[part]},
          {"wait_seconds", step.times.waits[part]},
          {"exchange_seconds", step.times.exchanges[part]}};
  nlohmann::ordered_json json = {
      {"profile", seconds.profile.path},
      {"name", seconds.profile.name},
      {"ranks_per_host", step.ranks_per_host},
      {"threads", step.threads},
      {"imbalance", step.imbalance},
      {"imbalance_reason", seconds.imbalance.reason},
      {"step_seconds", step.seconds},
      {"parts", parts},
      {"hidden_exchange_seconds", step.times.hidden_seconds()},
      {"tokens_per_second", step.tokens_per_second},
      {"model_flops_per_second", step.model_flops_per_second},
      {"link_bytes", {{"within_host", step.link_bytes[0]}, {"between_hosts", step.link_bytes[1]}}},
      {"checkpoint", {{"bytes", seconds.checkpoint.bytes}}},
      {"as_copies", step.gaps.as_copies},
      {"extrapolated", step.gaps.extrapolated}};
  if (step.utilisation > 0) json["utilisation"] = step.utilisation;
  if (seconds.checkpoint.seconds > 0) json["checkpoint"]["seconds"] = seconds.checkpoint.seconds;
  if (seconds.checkpoint.daly_interval > 0) {
    json["checkpoint"]["young_interval"] = seconds.checkpoint.young_interval;
    json["checkpoint"]["daly_interval"] = seconds.checkpoint.daly_interval;
  }
  if (seconds.num_tokens > 0) {
    const RunCost cost = run_cost(plan, seconds);
    json["run"] = {
        {"tokens", seconds.num_tokens}, {"hours", cost.hours}, {"rank_hours", cost.rank_hours}};
    if (cost.kilowatt_hours > 0) json["run"]["kilowatt_hours"] = cost.kilowatt_hours;
  }
  return json.dump();
}

}  // namespace switchyard
