// `switchyard eval`: the validation loss of the checkpoint that checkpoint.resume names, or with
// auto of the newest valid one of run.output, on any layout.
#pragma once

#include <string>

#include "parallel/group/collective_log.hpp"
#include "parallel/group/group.hpp"
#include "trainer/config.hpp"
#include "trainer/config_text.hpp"

namespace switchyard {

// Collective over `world`; rank 0 prints a line. The watchdog watches with the limits of training
// (setup, then step); its files are in RUN/eval-HOST-PROCESS, which stays only if it has a report.
// CheckpointError if there is no valid checkpoint, or what comparison.hpp refuses.
// configuration: the text of `config`.
void run_evaluation(Group& world, CollectiveLog& collectives, const Config& config,
                    const ConfigText& configuration);

}  // namespace switchyard
