// The processors that this process may run on: what a launcher's binding (mpirun --bind-to, srun
// --cpu-bind) or a container's limit left of the host. A core may offer several processors
// (hyper-threads); arithmetic counts cores.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "parallel/group/group.hpp"

namespace switchyard {

struct Cores {
  std::vector<int> processors;  // ascending, as Linux numbers them
  int num_cores = 0;            // distinct cores behind them

  static Cores of_this_process();
  std::string text() const;  // "0-3,8"
};

// This rank's fair share of the cores it may use: those of its binding, divided by the ranks of its
// host with the same binding; at least 1. Collective.
int num_cores_for_rank(Group& world);

}  // namespace switchyard
