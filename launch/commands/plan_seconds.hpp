// What `switchyard plan` says of seconds: the prediction as a text and as JSON.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "trainer/pricing/step_prediction.hpp"

namespace switchyard {

// A plan's seconds on a machine.
struct PlannedSeconds {
  MachineProfile profile;
  StepPrediction step{};
  CheckpointCost checkpoint{};
  double num_tokens = 0;  // of the run to be costed; 0: none
};

std::string seconds_text(const Plan& plan, const PlannedSeconds& seconds);
// As an object's text, which print_json() puts into the plan's.
std::string seconds_json(const Plan& plan, const PlannedSeconds& seconds);

// "balanced", a factor as "1.4", or a run's folder, whose measured load is taken on to this layout:
// rows of the fullest rank over the mean, and in words where it is from. ConfigError.
struct Imbalance {
  double factor = 1;
  std::string reason;
};
Imbalance read_imbalance(const std::string& wanted, const Config& config);

}  // namespace switchyard
