// `switchyard train`: one run from its folder's lock to its summary. Resumes by itself, evaluates,
// saves, stops on request, and leaves metrics, logs, configuration and exit.json behind.
#pragma once

#include <string>

#include "parallel/group/collective_log.hpp"
#include "parallel/group/group.hpp"
#include "tensor/error.hpp"
#include "trainer/config.hpp"
#include "trainer/config_text.hpp"
#include "trainer/run/meters/prediction_meter.hpp"
#include "trainer/run/run_marker.hpp"
#include "trainer/watch/stop_signal.hpp"

namespace switchyard {

// What a start of training is, besides its configuration.
struct RunStart {
  ConfigText configuration;
  std::string program;           // for the closing lines, as a shell reads them: this program, and
  std::string continue_command;  // the command that continues this run
  std::string command;           // as it was started
  std::string version;           // of the program, and the libraries it was built with
  std::string plot_script;       // likewise, what draws a run; empty: it is not here
  BatchJob job;
  RunMachine machine{};  // on rank 0
};

// Collective over `world`. `collectives`: the log of the world, which the watchdog reads. Returns
// ExitCode::done, or ExitCode::stopped after a stop on request; other ends are thrown.
ExitCode run_training(Group& world, CollectiveLog& collectives, const Config& config,
                      const RunStart& start, StopSignal& stop);

}  // namespace switchyard
