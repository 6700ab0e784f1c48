// `switchyard bench machine`: what this machine attains, for the plan's seconds
// (trainer/pricing/machine_profile.hpp). All ranks work at once, as in training, and a time is that
// of the slowest. Operands of a kernel change from call to call, so that small ones are not in the
// nearest cache more than in a step.
#pragma once

#include <functional>
#include <string>

#include "bench/measure.hpp"
#include "trainer/pricing/machine_profile.hpp"

namespace switchyard::bench {

struct MachineOptions {
  bool quick = false;  // coarse grids: a try, in seconds
  std::string folder;  // where the disk is measured
  // Told of what is measured next; on rank 0.
  std::function<void(const std::string&)> note = [](const std::string&) {};
};

// Collective over world. One setting: that of the ranks and threads at work. What could not be
// measured here is listed in not_measured. IoError if the folder cannot be written.
MachineProfile measure_machine(Group& world, const MachineOptions& options);

// Parts of it. Collective.
void measure_kernels(Group& world, const MachineOptions& options, MachineSetting& setting);
void measure_links(Group& world, const MachineOptions& options, MachineProfile& profile);
void measure_disk(Group& world, const MachineOptions& options, MachineProfile& profile);

}  // namespace switchyard::bench
