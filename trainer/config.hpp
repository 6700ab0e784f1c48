// The whole configuration of a run: one plain struct a key. launch/ fills them from YAML; a default
// written here is the default, everywhere.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "experts/config.hpp"
#include "model/activation_observer.hpp"
#include "model/config.hpp"
#include "parallel/mesh.hpp"
#include "tensor/choice.hpp"

namespace switchyard {

// Of activations and of weights in products.
enum class Precision : std::uint8_t { fp32, bf16 };
constexpr std::array<std::string_view, 2> choice_names(Precision) {
  return {"fp32", "bf16"};
}

// automatic: the best device that the build has.
enum class RunDevice : std::uint8_t { automatic, cpu, cuda };
constexpr std::array<std::string_view, 3> choice_names(RunDevice) {
  return {"auto", "cpu", "cuda"};
}

struct RunConfig {
  std::string output;  // the run's folder; required
  std::int64_t seed = 1234;
  Precision precision = Precision::bf16;
  RunDevice device = RunDevice::automatic;
  std::int64_t threads = 0;  // threads a rank; 0: OMP_NUM_THREADS, else cores / ranks of the host
};

struct DataConfig {
  std::string path;                // a token file written by `switchyard prepare`; required
  std::string mixture = "none";    // the corpora to train on (data/mixture.hpp); none: path alone
  bool loss_mask = false;          // targets count by the mask in the token files
  bool document_mask = false;      // no token attends to another document
  bool restart_positions = false;  // rotary positions count from the beginning of each document
};

struct TrainConfig {
  std::int64_t num_steps = 100;
  std::int64_t global_batch = 8;  // sequences a step, over all ranks
  std::int64_t micro_batch = 0;   // sequences a rank computes at once; 0: as many as a rank has
};

// The course of the learning rate (trainer/schedule.hpp).
enum class Schedule : std::uint8_t { cosine, linear, constant_decay };
constexpr std::array<std::string_view, 3> choice_names(Schedule) {
  return {"cosine", "linear", "constant_decay"};
}

struct OptimizerConfig {
  double learning_rate = 6e-4;
  Schedule schedule = Schedule::cosine;
  std::int64_t warmup_steps = 20;
  double min_learning_rate = 0;  // after the last step, where every schedule ends
  std::int64_t decay_steps = 0;  // constant_decay: the last steps, over which it falls linearly
  double weight_decay = 0.1;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double clip_norm = 1.0;  // 0: no clipping
};

// Where spilled activations lie.
enum class SpillStore : std::uint8_t { memory, hdf5 };
constexpr std::array<std::string_view, 2> choice_names(SpillStore) {
  return {"memory", "hdf5"};
}

// Exact mode: sums over tokens have no order, so that no layout changes a bit (docs/numerics.md).
struct NumericsConfig {
  bool exact = false;
  // What is summed in fp32 before it is added to a sum without an order: a unit of so many whole
  // sequences, or, where max_context is above 1, half of a max_context-th of a sequence. It follows
  // from these keys alone, never from the layout in use.
  std::int64_t unit_sequences = 1;
  std::int64_t max_context = 1;     // a multiple of every number of context ranks ever to be used
  std::int64_t fraction_bits = 48;  // sums are whole multiples of 2^-fraction_bits
};

// What layers do with the activations that the backward pass reads.
struct ActivationsConfig {
  LayerPolicy policy = LayerPolicy::keep;
  std::vector<std::int64_t> layers;       // with that policy, the others keep; empty: all
  SpillStore store = SpillStore::memory;  // of spill
  std::string folder = "auto";        // of store hdf5, local to the host; auto: $TMPDIR, else /tmp
  std::int64_t memory_megabytes = 0;  // of the records of spilled layers at work; 0: two records
};

// Activations of chosen steps, written to RUN/captures.
struct CaptureConfig {
  std::vector<std::int64_t> steps;      // empty: none
  std::vector<std::int64_t> layers;     // empty: all
  std::vector<ObservedTensor> tensors;  // empty: all
};

// What the routers of chosen steps decided, written to RUN/routing.
struct TraceConfig {
  bool routing = false;
  std::vector<std::int64_t> steps;  // empty: none
  bool traces_routing() const { return routing && !steps.empty(); }
};

// A time line of chosen steps, written to RUN/traces.
struct ProfileConfig {
  std::vector<std::int64_t> steps;  // empty: none
};

// What the seconds of a step are foretold by.
struct PlanConfig {
  std::string profile = "auto";  // auto: this user's, if it is of this machine; none; or a file
};

// What metrics.jsonl has, and forms beside it.
struct MetricsConfig {
  bool tensorboard = false;        // event files in RUN/events
  std::int64_t layers_every = 20;  // steps between the rows of layers with experts; 0: none
};

struct EvaluateConfig {
  std::int64_t every = 0;          // steps; 0: only when asked
  std::int64_t num_sequences = 0;  // the first of the validation split; 0: all
  bool accuracy = false;           // beside the loss; with data.loss_mask ever
};

// Where training begins, unless a folder is named: at the newest valid checkpoint of the run, if it
// has any, or at the first step.
enum class Resume : std::uint8_t { automatic, never };
constexpr std::array<std::string_view, 2> choice_names(Resume) {
  return {"auto", "never"};
}

// What a run takes from the checkpoint that it begins with. weights: values alone; step, schedule
// and position in the data begin anew, and so do the optimizer's moments. weights_and_moments: the
// moments, too, which go on counting their updates. all: everything, as if that run went on.
enum class StartWith : std::uint8_t { weights, weights_and_moments, all };
constexpr std::array<std::string_view, 3> choice_names(StartWith) {
  return {"weights", "weights_and_moments", "all"};
}

struct CheckpointConfig {
  std::int64_t every = 0;                          // steps; 0: only at the end and on request
  std::int64_t keep = 2;                           // newest checkpoints kept
  bool initial = false;                            // the untrained model is saved, too, as step 0
  std::string resume{name_of(Resume::automatic)};  // the name of a Resume, or a folder
  // The checkpoint that a run begins with which finds none of its own to go on from; or "none".
  std::string start_from = "none";
  StartWith start_with = StartWith::weights;
  bool starts_from() const { return start_from != "none"; }
  // Empty: a folder is named.
  std::optional<Resume> resume_choice() const { return choice_of<Resume>(resume); }
};

// Limits in seconds without any progress of any rank; 0: none.
struct WatchdogConfig {
  double setup = 600;  // reading, allocating, loading a checkpoint
  double step = 300;   // steps and evaluations
  double checkpoint = 600;
  std::int64_t slow_every = 50;  // steps between looks for slow ranks; 0: never
};

struct Config {
  RunConfig run;
  DataConfig data;
  ModelConfig model;
  ExpertsConfig experts;
  ParallelConfig parallel;
  TrainConfig train;
  OptimizerConfig optimizer;
  NumericsConfig numerics;
  ActivationsConfig activations;
  CaptureConfig capture;
  TraceConfig trace;
  ProfileConfig profile;
  PlanConfig plan;
  MetricsConfig metrics;
  EvaluateConfig evaluate;
  CheckpointConfig checkpoint;
  WatchdogConfig watchdog;

  bool measures_accuracy() const { return evaluate.accuracy || data.loss_mask; }
};

}  // namespace switchyard
