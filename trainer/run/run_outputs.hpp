// What rank 0 of a run writes step by step: metrics.jsonl, TensorBoard's event files if they are
// asked for; with the seconds of the step's parts, which it measures.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "trainer/config.hpp"
#include "trainer/run/meters/event_file.hpp"
#include "trainer/run/meters/metrics.hpp"
#include "trainer/run/meters/part_meter.hpp"

namespace switchyard {

class RunOutputs {
 public:
  // Goes on in `folder` after restored_step, whose later lines are cut; anew: what an earlier
  // course left there is. The profile outlives this object. IoError.
  RunOutputs(const std::string& folder, const MetricsConfig& config, std::int64_t restored_step,
             bool anew, Profile& profile);

  void begin_step() { parts_.begin_step(); }
  // A line of the step that has ended; its parts are filled in here.
  void write(StepMetrics line);
  void write(const EvaluationMetrics& line);
  void write(const LayerMetrics& line) { metrics_.write(line); }
  void write(const RestartMetrics& line) { metrics_.write(line); }
  void write(const PlacementMetrics& line) { metrics_.write(line); }

 private:
  MetricsWriter metrics_;
  std::unique_ptr<EventFile> events_;  // null: not asked for
  PartMeter parts_;
};

}  // namespace switchyard
