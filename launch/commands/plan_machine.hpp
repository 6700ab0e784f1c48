// What a plan is for: the machine and its ranks, as the command line, a profile or this host tells.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "launch/commands/plan_seconds.hpp"
#include "launch/pricing/find_profile.hpp"

namespace switchyard {

// What a rank of the job may use, and in words why.
struct RankMemory {
  std::int64_t bytes = 0;  // 0: nobody knows
  std::string reason;
};

// What the command line says of it; empty or 0: nothing.
struct MemoryOptions {
  double gib_of_rank = 0;
  std::string of_node;
  std::int64_t ranks_per_node = 0;
};

// What a plan's seconds are asked by.
struct SecondsOptions {
  std::string cluster;  // a profile; empty: plan.profile
  std::string imbalance = "balanced";
  double num_tokens = 0;
  bool extrapolate = false;
};

// The machine whose seconds are told, and its ranks. Without one: why.
struct PlanMachine {
  FoundProfile found;
  const MachineSetting* setting = nullptr;
};

// UsageError about options that cannot be right.
void require_right(const MemoryOptions& options);

// As --ranks-per-node says, or one for each core here.
int ranks_of_node(const MemoryOptions& options, int num_ranks);

// Nodes that are not told are taken to be like this host.
RankMemory memory_of_rank(const MemoryOptions& options, int num_ranks, const PlanMachine& machine);

// The profile decides on the threads of a rank, and on the device, unless the command line does.
PlanMachine machine_of(const SecondsOptions& options, const MemoryOptions& memory, int num_ranks,
                       bool has_threads, bool has_target, Config& config);

// None without a machine.
std::optional<PlannedSeconds> seconds_of(const Plan& plan, const Config& config,
                                         const PlanMachine& machine, const SecondsOptions& options);

}  // namespace switchyard
