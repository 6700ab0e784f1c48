// One run of training on this rank, from what its folder holds to its summary: resumes, takes
// steps, evaluates, saves, stops on request. run_training() (trainer/run/train_run.hpp) makes it
// and answers for its failures.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "trainer/activations/capture.hpp"
#include "trainer/checkpoint/checkpoint.hpp"
#include "trainer/checkpoint/resume.hpp"
#include "trainer/plan.hpp"
#include "trainer/routing/trace_writer.hpp"
#include "trainer/run/course.hpp"
#include "trainer/run/meters/layer_meter.hpp"
#include "trainer/run/meters/prediction_meter.hpp"
#include "trainer/run/meters/restart_history.hpp"
#include "trainer/run/meters/spill_meter.hpp"
#include "trainer/run/meters/step_trace.hpp"
#include "trainer/run/progress.hpp"
#include "trainer/run/rank_log.hpp"
#include "trainer/run/run_folder.hpp"
#include "trainer/run/run_outputs.hpp"
#include "trainer/run/run_record.hpp"
#include "trainer/run/run_setup.hpp"
#include "trainer/run/train_run.hpp"
#include "trainer/run/validation.hpp"
#include "trainer/watch/slow_ranks.hpp"
#include "trainer/watch/watchdog.hpp"

namespace switchyard {

// One run on this rank. What only rank 0 has (folder, metrics, progress) is null elsewhere.
class Run {
 public:
  Run(Group& world, CollectiveLog& collectives, Watchdog& watchdog, const Config& config,
      const RunStart& start, const Course& course, StopSignal& stop, RunFolder* folder,
      RankLog& log);
  // ExitCode::done, or ExitCode::stopped after a stop on request.
  ExitCode train(const TokenFile& tokens);
  std::int64_t step() const { return state_.step; }
  const std::string& stopped_by() const { return stopped_by_; }  // empty if nothing did

 private:
  void start(const TokenFile& tokens);
  void measure_peak();
  void resume(const TokenFile& tokens);
  // With what checkpoint.start_from has, if it names a checkpoint.
  void begin_from(const TokenFile& tokens);
  void record_start();
  // What this start is a restart of; only rank 0 knows.
  std::optional<RestartMetrics> find_restart();
  RunRecord record_of_start() const;
  void write_record(const std::optional<PlannedAtRows>& at_rows = std::nullopt) const;
  // What the plan says of the rows that the ranks received: rank 0 plans once more.
  void record_planned_memory();
  // What the steps took against what the plan foretold, if it did: kept and, where they part, told.
  void note_parting();

  void take_step();
  // What the run wants all ranks to know. A signal may reach one rank only, or the ranks at
  // different moments.
  void add_to(HostFigures& mine);
  void begin_capture();
  void end_capture();
  void note_capture(const std::string& path);
  void note_placement();
  void note_trace(const std::string& path);
  void note_routing(const std::string& path);
  // What traces of routing the run reads and writes.
  void prepare_routing();
  void write_metrics(double seconds, double tokens_per_second);
  // seconds: by layer with experts; empty: not measured in this step.
  void write_layers(const std::vector<LayerSeconds>& seconds);
  // Whether the step has rows of its layers with experts.
  bool shows_layers(std::int64_t step) const;
  // With experts, the one of the largest load; none if there are no others.
  std::optional<std::int64_t> worst_layer() const;
  void evaluate();
  void save();
  // The signal of which the ranks told each other in the step.
  bool stop_agreed();
  bool is_saved() const { return saved_step_ == state_.step; }
  bool due(std::int64_t every) const { return every > 0 && state_.step % every == 0; }
  std::string describe(const Plan& plan) const;
  void note(const std::string& text);
  void summarize(std::int64_t first_step, double seconds, bool stopped);

  Trainer& trainer() { return rank_->trainer; }

  Group& world_;
  CollectiveLog& collectives_;
  Watchdog& watchdog_;
  SlowRanks slow_ranks_;
  SpillMeter spill_meter_;
  const Config& config_;
  const RunStart& start_;
  const Course& course_;  // on rank 0; elsewhere only what it means for checkpoint.resume
  StopSignal& stop_;
  RunFolder* folder_;
  RankLog& log_;
  std::string checkpoints_;
  CorpusRecord corpus_;
  std::vector<Ancestor> lineage_;
  ArithmeticRecord arithmetic_;  // of an exact run
  Plan plan_;
  std::int64_t vocab_size_ = 0;
  RunRecord record_;  // of this start; on rank 0
  std::unique_ptr<RankState> rank_;
  std::unique_ptr<Loader> loader_;
  std::unique_ptr<Validation> validation_;
  std::unique_ptr<LoaderSource> source_;
  std::unique_ptr<Capture> capture_;
  std::unique_ptr<RestartHistory> history_;
  std::unique_ptr<RunOutputs> outputs_;
  std::unique_ptr<StepTrace> trace_;  // null: no step is to be traced
  std::unique_ptr<LayerMeter> layer_meter_;
  std::unique_ptr<TraceWriter> routing_trace_;  // the same, of routing
  std::unique_ptr<PredictionMeter> prediction_;
  std::unique_ptr<RunProgress> progress_;
  TrainState state_;
  StepResult last_;
  std::optional<double> validation_loss_;
  std::string checkpoint_path_;
  std::string stopped_by_;
  std::int64_t saved_step_ = -1;  // the newest that this run saved or goes on from; -1: none
  std::int64_t memory_bytes_ = 0;
  double flops_per_token_ = 0;
  double peak_ = 0;  // FLOP/s of all ranks
};

}  // namespace switchyard
