#include "trainer/run/run_outputs.hpp"

namespace switchyard {

RunOutputs::RunOutputs(const std::string& folder, const MetricsConfig& config,
                       std::int64_t restored_step, bool anew, Profile& profile)
    : metrics_(folder + "/metrics.jsonl", anew ? 0 : restored_step,
               anew ? RestartLines::cut : RestartLines::keep),
      parts_(profile) {
  if (config.tensorboard)
    events_ = std::make_unique<EventFile>(folder + "/events", restored_step + 1, anew);
}

void RunOutputs::write(StepMetrics line) {
  line.part_seconds = parts_.end_step();
  metrics_.write(line);
  if (events_) events_->write(line);
}

void RunOutputs::write(const EvaluationMetrics& line) {
  metrics_.write(line);
  if (events_) events_->write(line);
}

}  // namespace switchyard
