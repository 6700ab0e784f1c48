// `switchyard eval`: the validation loss of a run's newest valid checkpoint, on any layout.
#pragma once

#include "parallel/group/collective_log.hpp"
#include "parallel/group/group.hpp"
#include "trainer/config.hpp"

namespace switchyard {

// Collective over `world`; rank 0 prints a line. The watchdog watches with the limits of training
// (setup, then step); its files are in RUN/eval-HOST-PROCESS, which stays only if it has a report.
// CheckpointError if the run has no valid checkpoint.
void run_evaluation(Group& world, CollectiveLog& collectives, const Config& config);

}  // namespace switchyard
