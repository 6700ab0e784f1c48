// A run's steps against what the plan foretold of them (trainer/pricing), on rank 0: kept in
// record.json, and told at the end where they part.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tensor/profile.hpp"
#include "trainer/load_statistics.hpp"
#include "trainer/plan.hpp"
#include "trainer/pricing/step_prediction.hpp"
#include "trainer/run/meters/part_meter.hpp"

namespace switchyard {

// The machine that a run's seconds are foretold for; without a profile: why.
struct RunMachine {
  std::optional<MachineProfile> profile;
  std::string why_not;
};

// Foretold, and measured as medians over steps. Seconds; parts as of rank 0.
struct PredictedSteps {
  std::string profile;   // its path; empty: nothing was foretold
  std::string why_not;   // then
  double imbalance = 1;  // rows of the fullest rank over the mean, as measured
  double step = 0;
  PartSeconds parts{};
  std::int64_t num_measured = 0;  // steps; 0: none yet
  double measured_step = 0;
  PartSeconds measured_parts{};
};

class PredictionMeter {
 public:
  // The plan has records if the machine has a profile. Where the profile does not reach, nothing is
  // foretold, and why is told. profile: of this rank's device; outlives the meter, as plan does.
  PredictionMeter(const Plan& plan, const Config& config, const RunMachine& machine,
                  const RanksOfHost& ranks, Profile& profile);

  bool is_on() const { return setting_ != nullptr; }
  void begin_step();
  void end_step(double seconds, const ExpertLoad& load);
  // With the load of the experts so far.
  PredictedSteps result() const;

 private:
  RowsOfRanks rows() const;

  const Plan& plan_;
  DType compute_;
  RunMachine machine_;
  const MachineSetting* setting_ = nullptr;  // of machine_; null: nothing is foretold
  PartMeter parts_;
  std::int64_t num_steps_ = 0;
  std::vector<double> seconds_;            // of the steps that count
  std::vector<PartSeconds> part_seconds_;  // likewise
  RowsOfRanks sum_of_rows_{0, 0};          // over layers and steps
  std::int64_t num_loads_ = 0;
};

// "the steps took 1.32 times the foretold 0.41 s (experts 1.50, attention 1.21)"; empty: within
// 15 %, or nothing to compare.
std::string parting_text(const PredictedSteps& steps);

}  // namespace switchyard
