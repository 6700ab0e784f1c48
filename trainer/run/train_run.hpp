// `switchyard train`: one run from its folder's lock to its summary. Resumes by itself, evaluates,
// saves, stops on request, and leaves metrics, logs, configuration and exit.json behind.
#pragma once

#include <string>

#include "parallel/group/collective_log.hpp"
#include "parallel/group/group.hpp"
#include "tensor/error.hpp"
#include "trainer/config.hpp"
#include "trainer/watch/stop_signal.hpp"

namespace switchyard {

// Collective over `world`. `effective_yaml`: the complete configuration, stored with the run and in
// each checkpoint. `collectives`: the log of the world, which the watchdog reads. `command`: how a
// person continues this run, for the closing lines. Returns ExitCode::done, or ExitCode::stopped
// after a stop on request; other ends are thrown.
ExitCode run_training(Group& world, CollectiveLog& collectives, const Config& config,
                      const std::string& effective_yaml, const std::string& command,
                      StopSignal& stop);

}  // namespace switchyard
