// The hosts of a communicator's ranks, asked of MPI. Private to parallel/; the communicator crosses
// as MPI's portable integer handle.
#pragma once

#include "parallel/group/topology.hpp"

namespace switchyard::mpi {

// Collective. Ranks share a host if MPI finds that they can share memory; where MPI cannot tell,
// if their hosts have the same name.
Topology find_topology(int communicator);

}  // namespace switchyard::mpi
