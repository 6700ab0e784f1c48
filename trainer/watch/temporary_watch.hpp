// The watchdog of a command without a run of its own: an evaluation, a benchmark, doctor. Its files
// are in a folder NAME-HOST-PROCESS of their own, for a training or another such command may be at
// work in the same place; it is removed at the end and stays only if a rank failed or hung.
// One rank alone is not watched: it waits for nobody.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "parallel/group/collective_log.hpp"
#include "parallel/group/group.hpp"
#include "tensor/error.hpp"
#include "trainer/config.hpp"
#include "trainer/watch/watchdog.hpp"

namespace switchyard {

class TemporaryWatch {
 public:
  // Collective over `world`. Where the folder cannot be made in `parent`, or the hosts do not share
  // it, nothing is watched, and rank 0 says so on the terminal.
  TemporaryWatch(Group& world, CollectiveLog& collectives, const WatchdogConfig& limits,
                 const std::string& parent, const std::string& name);
  ~TemporaryWatch();
  TemporaryWatch(const TemporaryWatch&) = delete;
  TemporaryWatch& operator=(const TemporaryWatch&) = delete;

  void enter(RunSection section);
  // Collective: the work, then its end. A failure of this rank alone is claimed before it leaves,
  // so that the others need not report what follows from it.
  void run(Group& world, const std::function<void()>& work);

 private:
  std::string prepare(Group& world, const std::string& folder);
  void fail(ExitCode code);

  bool is_first_;
  bool has_failed_ = false;
  std::string folder_;  // empty: not watched
  std::optional<Watchdog> watchdog_;
};

// `seconds` in all sections; ranks that are slow are not looked for.
WatchdogConfig same_limit(double seconds);

// Where a command that has no folder leaves its files: the system's place for them, or the current
// folder, which hosts may share.
std::string place_for_watch(const Topology& topology);

}  // namespace switchyard
