#include "launch/commands/plan_machine.hpp"

#include <fmt/core.h>

#include <algorithm>

#include "kernels/threads.hpp"
#include "launch/options.hpp"
#include "launch/pricing/profile_file.hpp"
#include "parallel/cores.hpp"
#include "tensor/error.hpp"
#include "trainer/memory_limit.hpp"
#include "trainer/number_text.hpp"
#include "trainer/trainer.hpp"

namespace switchyard {

void require_right(const MemoryOptions& options) {
  if (!(options.gib_of_rank >= 0)) throw UsageError("plan", "--memory must be at least 0");
  if (options.ranks_per_node < 0) throw UsageError("plan", "--ranks-per-node must be at least 1");
  if (!options.of_node.empty() && parse_bytes(options.of_node).value_or(0) == 0)
    throw UsageError("plan", fmt::format("--node-memory {}: expected a size as 512GiB, 1.5TB, 64G "
                                         "or a number of bytes",
                                         options.of_node));
  if (options.gib_of_rank > 0 && (!options.of_node.empty() || options.ranks_per_node > 0))
    throw UsageError("plan",
                     "--memory is of a rank, --node-memory and --ranks-per-node are of a "
                     "node: give one or the other");
}

int ranks_of_node(const MemoryOptions& options, int num_ranks) {
  return static_cast<int>(std::min<std::int64_t>(num_ranks, options.ranks_per_node == 0
                                                                ? Cores::of_this_process().num_cores
                                                                : options.ranks_per_node));
}

RankMemory memory_of_rank(const MemoryOptions& options, int num_ranks, const PlanMachine& machine) {
  const bool is_told = options.gib_of_rank > 0 || !options.of_node.empty();
  if (!is_told && machine.setting != nullptr && machine.found.profile->memory_bytes_of_rank > 0)
    return {machine.found.profile->memory_bytes_of_rank,
            "of a rank, as " + machine.found.profile->path + " says"};
  if (options.gib_of_rank > 0) {
    constexpr double most_gib = 1 << 30;
    return {static_cast<std::int64_t>(std::min(options.gib_of_rank, most_gib) * (1 << 30)),
            "as --memory says"};
  }
  const bool assumes_ranks = options.ranks_per_node == 0;
  const int ranks_per_node = ranks_of_node(options, num_ranks);
  const std::string ranks_text =
      fmt::format("{} {} on a node{}", ranks_per_node, ranks_per_node == 1 ? "rank" : "ranks",
                  assumes_ranks && num_ranks > 1 ? ", one for each core here" : "");
  if (!options.of_node.empty()) {
    const std::int64_t of_node = parse_bytes(options.of_node).value_or(0);
    return {of_node / ranks_per_node,
            fmt::format("{} of a node, {}{}", format_bytes(static_cast<double>(of_node)),
                        ranks_text, assumes_ranks ? " (assumed; --ranks-per-node)" : "")};
  }
  const MemoryLimit limit = available_memory().for_each_of(ranks_per_node);
  if (limit.total == 0) return {};
  return {
      limit.available,
      fmt::format("assumed: nodes like this host, on which {}, {}, leaves so much for each rank; "
                  "{}; say otherwise with --node-memory, --ranks-per-node",
                  limit.name, format_bytes(static_cast<double>(limit.total)), ranks_text)};
}

PlanMachine machine_of(const SecondsOptions& options, const MemoryOptions& memory, int num_ranks,
                       bool has_threads, bool has_target, Config& config) {
  PlanMachine machine;
  if (options.cluster.empty())
    machine.found = find_profile(config.plan.profile);
  else
    machine.found.profile = read_profile(options.cluster);
  if (!machine.found.profile) return machine;
  const MachineProfile& profile = *machine.found.profile;
  const bool is_given = !options.cluster.empty();
  const std::int64_t threads = has_threads || !is_given ? kernels::num_threads() : 0;
  const std::int64_t ranks_per_host =
      is_given || memory.ranks_per_node > 0
          ? memory.ranks_per_node
          : std::min<std::int64_t>(num_ranks, Cores::of_this_process().num_cores);
  if (!has_target && is_given)
    config.run.device = profile.device == DeviceKind::cuda ? RunDevice::cuda : RunDevice::cpu;
  const bool wants_card = config.run.device == RunDevice::cuda;
  if (wants_card != (profile.device == DeviceKind::cuda)) {
    machine.found = {{},
                     fmt::format("{} is of the device {}", profile.path, name_of(profile.device))};
    return machine;
  }
  try {
    machine.setting =
        &setting_for(profile, num_ranks, {ranks_per_host, threads}, options.extrapolate);
  } catch (const ConfigError& error) {
    if (is_given) throw;
    machine.found = {{}, error.what()};  // seconds were not asked for
    return machine;
  }
  if (threads == 0) config.run.threads = machine.setting->threads;
  return machine;
}

std::optional<PlannedSeconds> seconds_of(const Plan& plan, const Config& config,
                                         const PlanMachine& machine,
                                         const SecondsOptions& options) {
  if (machine.setting == nullptr) return std::nullopt;
  const MachineProfile& profile = *machine.found.profile;
  PlannedSeconds seconds{.profile = profile};
  seconds.imbalance = read_imbalance(options.imbalance, config);
  seconds.step = predict_step(plan, compute_dtype(config.run), profile, *machine.setting,
                              {.extrapolate = options.extrapolate, .rows = seconds.imbalance.rows});
  seconds.checkpoint = checkpoint_cost(plan, profile, seconds.step.ranks_per_host);
  seconds.num_tokens = options.num_tokens;
  return seconds;
}

}  // namespace switchyard
