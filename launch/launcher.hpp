// Who started this process and as which of how many: read from the environment, before and without
// MPI. The one place that knows the variables of mpirun, mpiexec and srun.
#pragma once

#include <string>
#include <string_view>

namespace switchyard {

struct Launcher {
  std::string name;  // "mpirun", "mpiexec" or "srun"; empty: a plain process
  int rank = 0;
  int num_ranks = 1;
};

Launcher detect_launcher();

// Where srun starts more ranks on a host than it has processors: has those that wait inside MPI
// give their processor away (OMPI_MCA_mpi_yield_when_idle, unless it is set), as mpirun does by
// itself. Without, each exchange waits for the scheduler's slices. Before MPI starts.
void yield_where_crowded(const Launcher& launcher);
// The tasks of one node in Slurm's notation of all: node 2 of "4(x2),3" has 3. 0: it is not told.
int num_tasks_on_node(std::string_view tasks_per_node, int node);

std::string host_name();

}  // namespace switchyard
