// metrics.jsonl: one JSON object a line, one line a step, and a further line for an evaluation, for
// each layer with experts now and then, for a restart of the run and for experts that moved (the
// last three have the key "event": readers of steps pass over them). Floating-point numbers are
// written with the fewest digits that read back as the same double; JSON has no NaN or infinities,
// so these are the strings "nan", "inf" and "-inf". Every line is handed to the system as it is
// written.
#pragma once

#include <array>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tensor/profile.hpp"
#include "trainer/placement/expert_mover.hpp"

namespace switchyard {

// Seconds of rank 0 in a step by part, indexed by Part; they add up to the step's.
using PartSeconds = std::array<double, num_parts>;

// Of runs that spill activations.
struct SpillMetrics {
  double bytes = 0;             // moved to the stores of all ranks and back
  double wait_seconds = 0;      // of the rank that waited longest for them
  double bytes_per_second = 0;  // of all ranks, while copies ran
};

struct StepMetrics {  // fields in the order of the line
  std::int64_t step = 0;
  double loss = 0;
  double cross_entropy = 0;
  double balance_loss = 0;
  double z_loss = 0;
  double grad_norm = 0;
  double learning_rate = 0;
  std::int64_t num_tokens = 0;  // trained on so far
  double step_seconds = 0;
  double tokens_per_second = 0;
  double model_flops_per_second = 0;
  std::int64_t memory_bytes = 0;  // the fullest rank's peak so far
  std::int64_t max_rows = 0;      // most rows a rank received in a layer so far
  double load_max_over_mean = 0;  // the worst layer's
  double dropped_fraction = 0;
  std::optional<SpillMetrics> spill = std::nullopt;
  // Rounded to four digits, as are the seconds of parts.
  std::vector<double> load_by_layer = {};  // maximum over mean, of layers with experts; empty: none
  std::optional<PartSeconds> part_seconds = std::nullopt;  // parts without a time are left out
};

struct CorpusLoss {
  std::string path;
  double loss = 0;
};

struct EvaluationMetrics {
  std::int64_t step = 0;
  double validation_loss = 0;                      // of data.path
  std::optional<double> validation_accuracy = {};  // of runs that measure it
  std::vector<CorpusLoss> by_corpus = {};          // of data.mixture
};

// A layer with experts, of a step.
struct LayerMetrics {
  std::int64_t step = 0;
  std::int64_t layer = 0;
  double load_max_over_mean = 1;
  double load_variation = 0;           // standard deviation of the experts' rows by their mean
  std::int64_t num_idle = 0;           // experts without a row
  std::optional<double> entropy = {};  // of the router's shares, nats, mean over tokens
  double dropped_fraction = 0;         // of the choices
  double other_nodes_fraction = 0;     // of the rows: their experts are on other nodes
  std::optional<double> expert_seconds = {};    // of computation, mean over ranks
  std::optional<double> exchange_seconds = {};  // of dispatch and combine, of the quickest rank
  std::optional<double> wait_seconds = {};      // by which other ranks took longer, mean over ranks
  std::vector<std::int64_t> load_percent = {};  // rows by expert, of their mean
};

// A start that went on with a run whose earlier start had not finished it.
struct RestartMetrics {
  std::int64_t restarts = 0;    // of this run so far, this one included
  std::int64_t step = 0;        // restored: the next step is one later
  std::int64_t lost_steps = 0;  // taken after it by the earlier start, to be taken again
  double lost_seconds = 0;  // from the restored state's writing to this start; sums over restarts
  std::string reason;       // why the earlier start ended: "SIGUSR1", an error's message, ...
};

// Experts that changed places after a step.
struct PlacementMetrics {
  std::int64_t step = 0;
  PlacementChange change;
};

std::string to_json(const StepMetrics& metrics);  // one line, without its end
std::string to_json(const EvaluationMetrics& metrics);
std::string to_json(const LayerMetrics& metrics);
std::string to_json(const RestartMetrics& metrics);
std::string to_json(const PlacementMetrics& metrics);
std::string to_sentence(const PlacementMetrics& metrics);

// The last step with a complete line in the file at `path`; 0 if there is none or no file.
std::int64_t last_step_in(const std::string& path);

enum class RestartLines : std::uint8_t {
  keep,  // also those of steps that are cut: a restart is not undone by a later one
  cut,   // the run begins anew
};

class MetricsWriter {
 public:
  // Appends to the file at `path`. Lines of steps after `restored_step` are cut before (and with
  // them anything that is not a line of metrics, as a killed run may leave at the end); with 0 no
  // step remains. The file is replaced in one step. IoError.
  MetricsWriter(std::string path, std::int64_t restored_step,
                RestartLines restarts = RestartLines::keep);

  void write(const StepMetrics& metrics) { append(to_json(metrics)); }
  void write(const EvaluationMetrics& metrics) { append(to_json(metrics)); }
  void write(const LayerMetrics& metrics) { append(to_json(metrics)); }
  void write(const RestartMetrics& metrics) { append(to_json(metrics)); }
  void write(const PlacementMetrics& metrics) { append(to_json(metrics)); }
  std::int64_t num_cut() const { return num_cut_; }  // lines cut when it was opened

 private:
  void append(const std::string& line);
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };

  std::string path_;
  std::int64_t num_cut_ = 0;
  std::unique_ptr<std::FILE, Close> file_;
};

}  // namespace switchyard
