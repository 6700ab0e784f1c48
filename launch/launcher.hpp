// Who started this process and as which of how many: read from the environment, before and without
// MPI. The one place that knows the variables of mpirun, mpiexec and srun.
#pragma once

#include <string>
#include <string_view>

#include "trainer/run/run_marker.hpp"

namespace switchyard {

struct Launcher {
  // "mpirun" (Open MPI's), "mpiexec" (of another MPI: MPICH, Intel MPI, MVAPICH) or "srun"; empty:
  // a plain process.
  std::string name;
  int rank = 0;
  int num_ranks = 1;
};

Launcher detect_launcher();

// How a person starts `program` (as it was called) on as many ranks in the same way, quoted for the
// shell. launch/mpirun.sh tells its own line in SWITCHYARD_STARTED_BY, which takes the place of all
// that stands before the configuration.
std::string start_of_command(const Launcher& launcher, const std::string& program,
                             const std::string& command);

// The job of Slurm that this process is a part of, if any.
BatchJob detect_batch_job();

// The same error for tasks that srun started without any PMI: Open MPI may not even start there, and its
// words do not tell why. Before MPI starts.
void require_pmi(const Launcher& launcher);

// ConfigError, known to all ranks, if the environment tells of more ranks than MPI found: mpirun of
// another MPI, or srun without PMIx, starts tasks of which each would train alone. After MPI has
// started, before anything is touched.
void require_same_world(const Launcher& launcher, int world_size);

// Where srun starts more ranks on a host than it has processors: has those that wait inside MPI
// give their processor away (OMPI_MCA_mpi_yield_when_idle, unless it is set), as mpirun does by
// itself. Without, each exchange waits for the scheduler's slices. Before MPI starts.
void yield_where_crowded(const Launcher& launcher);
// The tasks of one node in Slurm's notation of all: node 2 of "4(x2),3" has 3. 0: it is not told.
int num_tasks_on_node(std::string_view tasks_per_node, int node);

std::string host_name();

}  // namespace switchyard
