// What a run's folder tells, for figures: whatever it does not hold, or holds in a form that cannot
// be read, is left empty here and named in `missing`. Numbers that are not there, or are no
// numbers, are NaN.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tensor/profile.hpp"
#include "trainer/config_text.hpp"

namespace switchyard::report {

inline constexpr double unknown = std::numeric_limits<double>::quiet_NaN();

struct StepData {
  double step = 0;
  double cross_entropy = unknown;  // nats a token
  double grad_norm = unknown;
  double learning_rate = unknown;
  double num_tokens = unknown;  // so far
  double seconds = unknown;
  double tokens_per_second = unknown;
  double model_flops_per_second = unknown;
  double memory_bytes = unknown;  // the fullest rank's peak so far
  double max_rows = unknown;
  double load_max_over_mean = unknown;
  double dropped_fraction = unknown;
  std::vector<double> load_by_layer{};
  std::optional<std::array<double, num_parts>> part_seconds{};  // of rank 0
};

// The load of every expert of a layer, by their mean.
struct LayerData {
  double layer = 0;
  std::vector<double> loads{};
};

struct Evaluation {
  double step = 0;
  double loss = unknown;
  double accuracy = unknown;  // of runs that measure it
};

struct Restart {
  double step = 0;
  double lost_steps = unknown;
  double lost_seconds = unknown;
  std::string reason;
};

// What was foretold of a run's steps, and what they took. Seconds.
struct PredictedData {
  std::string profile;  // empty: nothing was foretold
  std::string why_not;  // then
  double imbalance = unknown;
  double step = unknown, measured_step = unknown;
  std::array<double, num_parts> parts{}, measured_parts{};
};

// record.json (trainer/run/run_record.hpp)
struct RecordData {
  std::string command, directory, version, device, time, hosts;
  double num_ranks = unknown;
  double num_threads = unknown;
  double peak_flops_per_second = unknown;
  double data = unknown, context = unknown, expert = unknown;  // degrees
  double num_parameters = unknown, num_active_parameters = unknown;
  double planned_memory = unknown;  // of the fullest rank, balanced
  std::vector<std::pair<std::string, double>> memory_by_purpose{};
  double measured_rows = unknown;
  double planned_memory_at_rows = unknown;
  std::array<double, num_parts> part_flops{};  // of a step, all ranks
  std::array<double, num_parts> part_wire_bytes{};
  PredictedData predicted{};
};

// One exchange between ranks in a traced step.
struct ExchangeData {
  std::string operation;
  double bytes = 0;  // sent by the rank
  double seconds = 0;
};

struct RunData {
  std::string name;    // what figures call it
  std::string ending;  // "done", or how else it ended
  std::vector<StepData> steps{};
  double layers_step = unknown;     // of the layers' rows:
  std::vector<LayerData> layers{};  // of the last step that has some
  std::vector<Evaluation> evaluations{};
  std::vector<Restart> restarts{};
  std::string config_text{};
  ConfigValues config{};
  std::optional<RecordData> record{};
  std::vector<ExchangeData> exchanges{};
  std::vector<std::string> missing{};  // sentences

  std::string value_of(std::string_view key) const;  // of the configuration; empty: not there
};

// DataError if `folder` is no folder of a run: it has neither metrics.jsonl nor run.json.
RunData read_run(const std::string& folder);
// The exchanges of its traced steps that moved something (traces may be large).
void add_exchanges(RunData& run);

// The median of the finite values; NaN without any.
double median_of(std::vector<double> values);
// Tokens a second: the median of the steps but the first two of the run, which allocate.
double usual_tokens_per_second(const RunData& run);
double total_seconds(const RunData& run);  // of steps

}  // namespace switchyard::report
