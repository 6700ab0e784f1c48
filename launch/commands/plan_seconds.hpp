// What `switchyard plan` says of seconds: the prediction as a text and as JSON.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "launch/commands/plan_imbalance.hpp"
#include "trainer/pricing/step_prediction.hpp"

namespace switchyard {

// A plan's seconds on a machine.
struct PlannedSeconds {
  MachineProfile profile;
  StepPrediction step{};
  Imbalance imbalance{};
  CheckpointCost checkpoint{};
  double num_tokens = 0;  // of the run to be costed; 0: none
};

std::string seconds_text(const Plan& plan, const PlannedSeconds& seconds);
// As an object's text, which print_json() puts into the plan's.
std::string seconds_json(const Plan& plan, const PlannedSeconds& seconds);

}  // namespace switchyard
