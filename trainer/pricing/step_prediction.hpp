// The seconds of a planned step: each rank's record (StepRecords) priced by a machine's profile and
// simulated, and what follows from it for a run.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "trainer/load_statistics.hpp"
#include "trainer/plan.hpp"
#include "trainer/pricing/exchange_price.hpp"
#include "trainer/pricing/step_simulation.hpp"

namespace switchyard {

// The ranks of a job on a machine.
struct RanksOfHost {
  std::int64_t ranks_per_host = 0;  // 0: as the profile has it
  std::int64_t threads = 0;         // of a rank; 0: likewise
};

// The setting of the profile that was measured like this; where nothing is asked for, the one with
// the most ranks on a host, but not more than the job has. ConfigError that names the settings
// there are, unless `extrapolate`: then the nearest.
const MachineSetting& setting_for(const MachineProfile& profile, int num_ranks,
                                  const RanksOfHost& ranks, bool extrapolate);

struct PredictionOptions {
  bool extrapolate = false;
  RowsOfRanks rows = {};  // mean over layers
};

struct StepPrediction {
  std::int64_t ranks_per_host = 1;
  std::int64_t threads = 1;
  double imbalance = 1;  // RowsOfRanks::fullest
  double seconds = 0;    // of the slowest rank, for which all wait
  // Of rank 0, as a run's own metrics have them. What it waits for slower ranks is in reduction.
  StepTimes times{};
  double tokens_per_second = 0;
  double model_flops_per_second = 0;  // of all ranks
  double utilisation = 0;             // of what products attain at most; 0: not known
  std::array<double, num_link_classes> link_bytes{};  // sent by rank 0 in a step
  PriceGaps gaps{};
};

// The plan has records. ConfigError, with all that would be extrapolated, unless that is allowed.
StepPrediction predict_step(const Plan& plan, DType compute, const MachineProfile& profile,
                            const MachineSetting& setting, const PredictionOptions& options = {});

// What a checkpoint costs, and how often to write one.
struct CheckpointCost {
  double bytes = 0;            // of the job: weights and both moments in fp32
  double seconds = 0;          // each host writes its share; 0: the profile does not tell
  double failure_seconds = 0;  // between failures of any host of the job; 0: not told
  double young_interval = 0;   // seconds of work between checkpoints; sqrt(2 C M)
  double daly_interval = 0;    // likewise, of higher order
};
CheckpointCost checkpoint_cost(const Plan& plan, const MachineProfile& profile,
                               std::int64_t ranks_per_host);

// J. W. Young, CACM 17 (1974) 530; J. T. Daly, FGCS 22 (2006) 303, eq. 37. Seconds of a checkpoint
// and between failures.
double young_interval(double checkpoint, double between_failures);
double daly_interval(double checkpoint, double between_failures);

// The prices of a record's units on one of the ranks that share it.
UnitPrices prices_of(const WorkRecord& record, int rank, const MachineProfile& profile,
                     const MachineSetting& setting, const RowsOfRanks& rows, PriceGaps& gaps);

}  // namespace switchyard
