// The session is the life of this process among the others: MPI from start to end. It is the first
// object in main and the last to die; groups, devices and tensors die before it.
#pragma once

#include <memory>

#include "parallel/group/collective_log.hpp"
#include "parallel/group/group.hpp"

namespace switchyard {

class Session {
 public:
  // Initialises MPI (serialized: one thread at a time calls it; a library that only knows funneled
  // will do, without progress by a thread) and makes MPI return errors, which the groups turn into
  // exceptions with the call, the reason, the rank and the host. Without mpirun or srun the world
  // has one rank.
  Session(int* argc, char*** argv);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  Group& world() { return *world_; }
  // The collectives of the world and of all groups made from it.
  CollectiveLog& log() { return log_; }
  // Ends all ranks of the job at once with this exit code; for a failure that the others cannot
  // know of. Does not return.
  [[noreturn]] void abort(int exit_code);

 private:
  CollectiveLog log_;
  std::unique_ptr<Group> world_;
};

}  // namespace switchyard
