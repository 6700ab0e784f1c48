// RUN/record.json: how a start of training was called, what it ran on and what was planned of it.
// The latest start's counts. `switchyard report` reads it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "parallel/group/topology.hpp"
#include "trainer/plan.hpp"
#include "trainer/run/meters/prediction_meter.hpp"

namespace switchyard {

struct RunRecord {
  std::string command;    // as a shell reads it, from the folder `directory`
  std::string directory;  // in which it was started
  std::string version;    // of the program and of its libraries, several lines
  std::string device;     // what the ranks compute on
  int num_threads = 1;    // of a rank
  std::int64_t vocab_size = 0;
  std::int64_t first_step = 0;       // after which this start begins
  double peak_flops_per_second = 0;  // of all ranks, measured at the start
};

// What routing came to, once it is known: the memory that the plan gives for it.
struct PlannedAtRows {
  std::int64_t rows = 0;  // received by the fullest rank in a layer
  std::int64_t memory_bytes = 0;
};

// Atomic; IoError.
void write_run_record(const std::string& run_folder, const RunRecord& record,
                      const Topology& topology, const Plan& plan, const PredictedSteps& predicted,
                      const std::optional<PlannedAtRows>& at_rows = std::nullopt);

}  // namespace switchyard
