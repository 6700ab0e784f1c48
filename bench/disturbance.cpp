#include "bench/disturbance.hpp"

#include <fmt/core.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "tensor/error.hpp"

namespace switchyard::bench {

Disturbance::Disturbance(int processor) {
  char name[] = "sh", option[] = "-c", script[] = "while kill -0 $PPID 2>/dev/null; do :; done";
  char* const words[] = {name, option, script, nullptr};
  const int failure = ::posix_spawnp(&pid_, name, nullptr, nullptr, words, environ);
  if (failure != 0)
    throw IoError(
        fmt::format("cannot start a program to disturb this one: {}", std::strerror(failure)));
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(processor, &set);
  if (::sched_setaffinity(pid_, sizeof set, &set) != 0)
    throw IoError(
        fmt::format("cannot bind a program to processor {}: {}", processor, std::strerror(errno)));
}

Disturbance::~Disturbance() {
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

SchedulingFloor scheduling_floor(int num_cores, int num_threads) {
  if (num_threads < num_cores) return {};
  const double c = num_cores;
  return num_cores == 1 ? SchedulingFloor{2, 2} : SchedulingFloor{c / (c - 0.5), (c + 1) / c};
}

}  // namespace switchyard::bench
