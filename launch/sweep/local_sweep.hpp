// Runs the points of a study on this machine, one after another. Other machines that see the folder
// may do the same: a point belongs to whoever holds its folder.
#pragma once

#include <functional>
#include <iosfwd>

#include "launch/sweep/study_points.hpp"

namespace switchyard {

struct LocalSweepSettings {
  bool retry = false;                // start failed points again
  std::function<bool()> is_stopped;  // asked all the time
};

struct SweepResult {
  std::int64_t num_done = 0;
  std::int64_t num_failed = 0;  // and what hangs on them
  bool was_stopped = false;
};

// Returns when no point is left that it could start and none runs elsewhere. ConfigError if another
// sweep runs the study on this machine.
SweepResult run_locally(const Study& study, const LocalSweepSettings& settings, std::ostream& out);

}  // namespace switchyard
