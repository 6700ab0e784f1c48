// The one check of MPI's return codes. Private to parallel/: no header outside includes it, and it
// does not need mpi.h itself. Communicators cross file borders as MPI's portable integer handles.
#pragma once

#include <memory>
#include <string_view>

#include "parallel/group/collective_log.hpp"
#include "parallel/group/group.hpp"

namespace switchyard::mpi {

// Returns if `code` is MPI_SUCCESS. Otherwise throws with the call, MPI's reason, this rank and
// this host: InternalError if the call was wrong (arguments, counts that do not match), IoError if
// the communication failed.
void check(int code, std::string_view call);

// Whether another thread may call MPI while none else does; without MPI nobody calls it.
bool threads_may_take_turns();

// All ranks of the job. MPI is running, and returns errors. The exchanges of the world and of all
// groups made from it are noted in `log`, which outlives them.
std::unique_ptr<Group> make_world_group(CollectiveLog& log);

}  // namespace switchyard::mpi
