// `switchyard bench machine`: measures this machine and writes its profile.
#pragma once

#include <string>

#include "launch/commands/commands.hpp"

namespace switchyard {

struct BenchMachineOptions {
  std::string output;  // empty: where plan.profile: auto looks
  std::string name;    // of the profile; empty: the processor's
  bool quick = false;
};

// Collective. A profile of the same processor that is there already keeps its other settings.
void bench_machine(const CommandContext& context, const BenchMachineOptions& options);

}  // namespace switchyard
