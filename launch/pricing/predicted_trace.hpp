// The time line that a plan foretells, in the form of a run's own traces (profile.steps): both open
// in Perfetto, one beside the other.
#pragma once

#include <string>

#include "trainer/pricing/step_prediction.hpp"

namespace switchyard {

// JSON of Chrome's trace format: one step, a process for each of the plan's first ranks, of which
// at most so many. The plan has records.
std::string predicted_trace(const Plan& plan, const MachineProfile& profile,
                            const MachineSetting& setting, const PredictionOptions& options,
                            std::size_t most_ranks);

}  // namespace switchyard
