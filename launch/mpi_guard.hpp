// Ends a process whose MPI does not start, or does not end: then some rank of the job has not
// arrived there, and no run is watched yet, or any more, that could say which. The limits are 600
// s, or SWITCHYARD_START_SECONDS and SWITCHYARD_END_SECONDS (0: none); they hold for all commands.
// Watches from construction to destruction, in a thread of its own.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>

#include "launch/launcher.hpp"

namespace switchyard {

class MpiGuard {
 public:
  enum class Phase : std::uint8_t { start, end };

  // ConfigError if the phase's variable holds no number.
  MpiGuard(Phase phase, const Launcher& launcher);
  ~MpiGuard();
  MpiGuard(const MpiGuard&) = delete;
  MpiGuard& operator=(const MpiGuard&) = delete;

 private:
  void watch(double seconds, const std::string& last_words, int rank);

  std::mutex mutex_;
  std::condition_variable passed_;
  bool has_passed_ = false;
  std::thread thread_;
};

}  // namespace switchyard
