#include "trainer/run/run_record.hpp"

#include <nlohmann/json.hpp>

#include "data/files/atomic_file.hpp"
#include "trainer/watch/exit_file.hpp"

namespace switchyard {
namespace {

using Json = nlohmann::ordered_json;

Json hosts_of(const Topology& topology) {
  Json hosts = Json::array();
  for (int host = 0; host < topology.num_hosts(); ++host)
    hosts.push_back(
        {{"name", topology.name_of(host)}, {"num_ranks", topology.ranks_of(host).size()}});
  return hosts;
}

Json planned_by(const Plan& plan, const std::optional<PlannedAtRows>& at_rows) {
  const RankPlan& fullest = plan.fullest();
  Json by_purpose = Json::object();
  for (int purpose = 0; purpose < num_purposes; ++purpose)
    by_purpose[std::string(name_of(static_cast<Purpose>(purpose)))] =
        fullest.bytes[static_cast<std::size_t>(purpose)];
  Json parts = Json::object();
  const double scale = plan.num_ranks / static_cast<double>(plan.ranks.size());
  for (std::size_t part = 0; part < num_parts; ++part) {
    Work sum;
    for (const RankPlan& rank : plan.ranks) sum += rank.step[part];
    if (sum.flops > 0 || sum.wire_bytes > 0)
      parts[std::string(name_of(static_cast<Part>(part)))] = {
          {"flops", sum.flops * scale}, {"wire_bytes", sum.wire_bytes * scale}};
  }
  Json planned = {
      {"balanced_rows", fullest.max_rows},          {"memory_bytes", fullest.peak_bytes},
      {"memory_by_purpose", std::move(by_purpose)}, {"step_flops", plan.step_flops()},
      {"step_wire_bytes", plan.step_wire_bytes()},  {"parts", std::move(parts)}};
  if (at_rows)
    planned["at_measured_rows"] = {{"rows", at_rows->rows},
                                   {"memory_bytes", at_rows->memory_bytes}};
  return planned;
}

Json parts_of(const PartSeconds& seconds) {
  Json parts = Json::object();
  for (std::size_t part = 0; part < num_parts; ++part)
    if (seconds[part] > 0) parts[std::string(name_of(static_cast<Part>(part)))] = seconds[part];
  return parts;
}

Json predicted_by(const PredictedSteps& steps) {
  if (steps.profile.empty()) return {{"why_not", steps.why_not}};
  Json json = {{"profile", steps.profile},
               {"imbalance", steps.imbalance},
               {"step_seconds", steps.step},
               {"parts", parts_of(steps.parts)}};
  if (steps.num_measured > 0)
    json["measured"] = {{"num_steps", steps.num_measured},
                        {"step_seconds", steps.measured_step},
                        {"parts", parts_of(steps.measured_parts)}};
  return json;
}

}  // namespace

void write_run_record(const std::string& run_folder, const RunRecord& record,
                      const Topology& topology, const Plan& plan, const PredictedSteps& predicted,
                      const std::optional<PlannedAtRows>& at_rows) {
  const Json json = {{"format", "switchyard record"},
                     {"format_version", 1},
                     {"command", record.command},
                     {"directory", record.directory},
                     {"version", record.version},
                     {"time", utc_now()},
                     {"first_step", record.first_step},
                     {"num_ranks", plan.num_ranks},
                     {"hosts", hosts_of(topology)},
                     {"num_threads", record.num_threads},
                     {"device", record.device},
                     {"peak_flops_per_second", record.peak_flops_per_second},
                     {"parallel",
                      {{"data", plan.parallel.data},
                       {"context", plan.parallel.context},
                       {"expert", plan.parallel.expert}}},
                     {"vocab_size", record.vocab_size},
                     {"num_parameters", plan.num_parameters},
                     {"num_active_parameters", plan.num_active_parameters},
                     {"tokens_per_step", plan.tokens_per_step},
                     {"num_micro_steps", plan.num_micro_steps},
                     {"planned", planned_by(plan, at_rows)},
                     {"predicted", predicted_by(predicted)}};
  write_file_atomically(run_folder + "/record.json",
                        json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

}  // namespace switchyard
