// Who started this process and as which of how many: read from the environment, before and without
// MPI. The one place that knows the variables of mpirun, mpiexec and srun.
#pragma once

#include <string>

namespace switchyard {

struct Launcher {
  std::string name;  // "mpirun", "mpiexec" or "srun"; empty: a plain process
  int rank = 0;
  int num_ranks = 1;
};

Launcher detect_launcher();
std::string host_name();

}  // namespace switchyard
