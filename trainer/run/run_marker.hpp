// FOLDER/run.json: a run of this program made this folder, which course trains in it, and the job
// that began that course. It is written when the folder is, before anything else but run.lock.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace switchyard {

// The job of a batch system that a start belongs to; one that is queued again keeps its id.
struct BatchJob {
  std::string id;                 // empty: none
  std::int64_t num_restarts = 0;  // times that it has been queued again
};

struct RunMarker {
  std::string course;  // empty: none has begun
  BatchJob begun_by;   // the start that began the course
};

// None if there is no such file, or if it is not one of ours.
std::optional<RunMarker> read_run_marker(const std::string& run_folder);
void write_run_marker(const std::string& run_folder, const RunMarker& marker);  // IoError

}  // namespace switchyard
