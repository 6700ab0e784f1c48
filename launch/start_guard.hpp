// Ends a process whose MPI does not start: then some rank of the job has not arrived, and there is
// no run yet whose watchdog could say which. The limit is 600 s, or SWITCHYARD_START_SECONDS (0:
// none); no configuration has been read so early. Watches from construction to destruction, in a
// thread of its own.
#pragma once

#include <condition_variable>
#include <mutex>
#include <thread>

#include "launch/launcher.hpp"

namespace switchyard {

class StartGuard {
 public:
  explicit StartGuard(const Launcher& launcher);
  ~StartGuard();
  StartGuard(const StartGuard&) = delete;
  StartGuard& operator=(const StartGuard&) = delete;

 private:
  void watch(double seconds, const Launcher& launcher);

  std::mutex mutex_;
  std::condition_variable started_;
  bool has_started_ = false;
  std::thread thread_;
};

}  // namespace switchyard
