// Submits the points of a study as arrays of Slurm jobs by launch/submit: one array for each number
// of ranks, the branches of trunks behind them, and at the end a job that collects.
#pragma once

#include <iosfwd>
#include <string>

#include "launch/sweep/study_points.hpp"

namespace switchyard {

// retry: failed points, too. Returns the number of points submitted. ConfigError if jobs of this
// study are queued or run already, or if Slurm or submit refuses.
std::int64_t submit_to_slurm(const Study& study, bool retry, std::ostream& out);

}  // namespace switchyard
