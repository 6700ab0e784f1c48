#include "parallel/session.hpp"

#include <mpi.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>

#include "parallel/group/mpi_call.hpp"
#include "tensor/error.hpp"

namespace switchyard {

Session::Session(int* argc, char*** argv) {
  int running = 0;
  mpi::check(MPI_Initialized(&running), "MPI_Initialized");
  expect(running == 0, "one session in the life of a process");
  int provided = MPI_THREAD_SINGLE;
  mpi::check(MPI_Init_thread(argc, argv, MPI_THREAD_SERIALIZED, &provided), "MPI_Init_thread");
  // The communicators of all groups descend from this one and inherit its handler.
  mpi::check(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  if (provided < MPI_THREAD_FUNNELED)
    throw InternalError("this MPI library does not allow threads beside the one that calls it");
  world_ = mpi::make_world_group(log_);
  // Where the other end of a connection has died MPI's next write is an error of the exchange; the
  // signal would end this rank, too, before it can say whose death it was.
  if (world_->size() > 1) std::signal(SIGPIPE, SIG_IGN);
  log_.set_rank(world_->rank(), world_->size());
}

Session::~Session() {
  // An exception that leaves main's scope: the other ranks know nothing of it, and finalising would
  // wait for them. The launcher ends them when this process exits without it.
  if (std::uncaught_exceptions() > 0) return;
  world_.reset();
  if (MPI_Finalize() != MPI_SUCCESS) std::fprintf(stderr, "MPI_Finalize failed\n");
}

void Session::abort(int exit_code) {
  std::fflush(nullptr);
  // A single rank has nobody to end, and leaves without MPI's announcement.
  if (world_->size() == 1)
    MPI_Finalize();
  else
    MPI_Abort(MPI_COMM_WORLD, exit_code);
  std::_Exit(exit_code);
}

}  // namespace switchyard
