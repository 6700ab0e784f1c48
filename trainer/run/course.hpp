// A course is one training from its first step on, through all its restarts. Its random id stands
// in the run's marker and in the manifest of every checkpoint. A folder holds the checkpoints and
// the metrics of one course only: a start that would begin another one beside it is refused.
#pragma once

#include <string>

#include "trainer/config.hpp"
#include "trainer/run/run_marker.hpp"

namespace switchyard {

struct Course {
  std::string id;
  bool is_new =
      false;           // begins with this start: metrics and restarts in the folder are not its own
  std::string resume;  // what checkpoint.resume means for this start: auto, never or a folder
  BatchJob begun_by;
  std::string note;  // a sentence for the log; empty: nothing to say
};

// Which course a start in `run_folder`, with this marker, is a part of. Changes nothing.
//  - auto, or the newest checkpoint of the folder by name: that of the folder; if it has none yet,
//    a new id. Checkpoints without an id (of earlier versions) belong to it.
//  - never, or another checkpoint: a new one, if the folder holds no checkpoints. But a job that was
//    queued again goes on with the course that it began (its newest checkpoint, if it has saved).
// ConfigError, with the choices, if the folder holds checkpoints that the course would come to
// replace, or some of several courses.
Course choose_course(const std::string& run_folder, const RunMarker& marker,
                     const CheckpointConfig& config, const BatchJob& job);

}  // namespace switchyard
