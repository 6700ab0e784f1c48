// Whether the system lets this process have the threads it is to compute with. OpenMP ends the
// program without a word of ours where it does not, so it is asked before.
#pragma once

#include <string>
#include <system_error>

namespace switchyard {

// What can be wrong when a thread cannot be started, with the limits that are set: processes and
// threads of the user (ulimit -u), of the container (pids.max), memory for stacks (ulimit -v).
std::string no_thread_text();

// Whether that is what starting a thread threw.
bool is_thread_shortage(const std::system_error& error);

// The most threads of a rank that make sense: eight for each processor of this host, at least 256.
int most_threads();

// ConfigError if `num_threads`, which `source` (OMP_NUM_THREADS, run.threads) asks for, is above
// most_threads(); MemoryError if the system does not start them.
void require_threads(int num_threads, const std::string& source);

}  // namespace switchyard
