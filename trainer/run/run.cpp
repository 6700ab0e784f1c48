#include "trainer/run/run.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <iostream>
#include <utility>

#include "data/files/shell_quote.hpp"
#include "trainer/agreement.hpp"
#include "trainer/number_text.hpp"
#include "trainer/run_device.hpp"

namespace switchyard {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

Run::Run(Group& world, CollectiveLog& collectives, Watchdog& watchdog, const Config& config,
         const RunStart& start, const Course& course, StopSignal& stop, RunFolder* folder,
         RankLog& log)
    : world_(world),
      collectives_(collectives),
      watchdog_(watchdog),
      slow_ranks_(collectives, config.watchdog.slow_every),
      config_(config),
      start_(start),
      course_(course),
      stop_(stop),
      folder_(folder),
      log_(log),
      checkpoints_(config.run.output + "/checkpoints") {}

ExitCode Run::train(const TokenFile& tokens) {
  start(tokens);
  if (config_.checkpoint.initial && state_.step == 0 && !is_saved()) save();
  const Clock::time_point started = Clock::now();
  const std::int64_t first_step = state_.step;
  bool stopped = false;
  while (state_.step < config_.train.num_steps && !stopped) {
    take_step();
    if (due(config_.evaluate.every)) evaluate();
    stopped = stop_agreed();
    if (due(config_.checkpoint.every) || stopped) save();
  }
  if (!is_saved() && state_.step > first_step) save();
  if (capture_) note_capture(capture_->finish());
  if (trace_) note_trace(trace_->finish());
  if (routing_trace_) note_routing(routing_trace_->finish());
  record_planned_memory();
  note_parting();
  summarize(first_step, seconds_since(started), stopped);
  return stopped ? ExitCode::stopped : ExitCode::done;
}

void Run::write_record(const std::optional<PlannedAtRows>& at_rows) const {
  write_run_record(folder_->path(), record_, world_.topology(), plan_, prediction_->result(),
                   at_rows);
}

void Run::record_planned_memory() {
  if (folder_ == nullptr) return;
  // A run that took no step has those of the run before it, which may have had another layout.
  const std::int64_t rows = std::min(state_.max_rows, worst_case_rows(config_, world_.size()));
  std::optional<PlannedAtRows> at_rows;
  if (rows > 0)
    at_rows = {.rows = rows,
               .memory_bytes = peak_bytes_with_rows(config_, plan_, vocab_size_, rows)};
  try {
    write_record(at_rows);
  } catch (const IoError& error) {  // the run itself is whole
    note(error.what());
  }
}

void Run::note_parting() {
  if (!prediction_ || !prediction_->is_on()) return;
  const std::string text = parting_text(prediction_->result());
  if (!text.empty()) note(text);
}

void Run::take_step() {
  watchdog_.enter(RunSection::step);
  slow_ranks_.begin_step();
  const bool captures = capture_ && capture_->wants(state_.step + 1);
  if (captures) begin_capture();
  const bool traces_routing = routing_trace_ && routing_trace_->wants(state_.step + 1);
  trainer().record_routing(traces_routing);
  if (outputs_) outputs_->begin_step();
  if (prediction_) prediction_->begin_step();
  const bool traces = trace_ && trace_->wants(state_.step + 1);
  if (traces) trace_->begin_step(state_.step + 1);
  const bool measures_layers = shows_layers(state_.step + 1) && !traces;
  if (measures_layers) layer_meter_->begin_step();
  const Clock::time_point started = Clock::now();
  last_ = trainer().step(state_.step + 1, *source_, [this](HostFigures& mine) { add_to(mine); });
  const double seconds = seconds_since(started);
  if (prediction_) prediction_->end_step(seconds, last_.load);
  if (traces) trace_->end_step();
  std::vector<LayerSeconds> layer_seconds;
  if (measures_layers) layer_seconds = layer_meter_->end_step();
  if (captures) end_capture();
  if (traces_routing) routing_trace_->write(state_.step + 1, *trainer().routing_record());
  const std::int64_t tokens = config_.train.global_batch * config_.model.sequence_length;
  state_.step += 1;
  state_.num_tokens += tokens;
  state_.data_position += config_.train.global_batch;
  for (const std::string& sentence :
       slow_ranks_.compare(last_.report.computed_seconds, world_.topology()))
    note(sentence);
  slow_ranks_.end_step();
  write_metrics(seconds, static_cast<double>(tokens) / seconds);
  if (last_.moved) note_placement();
  if (outputs_ && shows_layers(state_.step)) write_layers(layer_seconds);
  if (capture_) note_capture(capture_->advance());
  if (trace_) note_trace(trace_->advance());
  if (routing_trace_) note_routing(routing_trace_->advance(state_.step));
  if (!progress_) return;
  progress_->step({.step = state_.step,
                   .loss = last_.loss,
                   .balance = last_.load.max_over_mean,
                   .balance_layer = worst_layer(),
                   .num_tokens = static_cast<double>(tokens),
                   .seconds = seconds,
                   .flops_per_token = flops_per_token_,
                   .peak_flops_per_second = peak_});
}

void Run::add_to(HostFigures& mine) {
  mine.maxima.stop_signal = stop_.number();
  mine.computed_seconds = slow_ranks_.seconds_a_step();
  spill_meter_.add_to(mine, trainer());
}

void Run::begin_capture() {
  capture_->begin_step(state_.step + 1);
  trainer().observe_with(capture_.get());
}

void Run::end_capture() {
  trainer().observe_with(nullptr);
  capture_->end_step();
}

void Run::note_capture(const std::string& path) {
  if (!path.empty()) note(fmt::format("captured activations in {}", path));
}

void Run::note_placement() {
  const PlacementMetrics line{.step = state_.step, .change = *last_.moved};
  if (outputs_) outputs_->write(line);
  note(to_sentence(line));
}

void Run::note_trace(const std::string& path) {
  if (!path.empty()) note(fmt::format("traced steps in {}", path));
}

void Run::note_routing(const std::string& path) {
  if (!path.empty()) note(fmt::format("traced routing in {}", path));
}

void Run::write_metrics(double seconds, double tokens_per_second) {
  state_.max_rows = static_cast<std::int64_t>(last_.report.maxima.max_rows);
  memory_bytes_ = static_cast<std::int64_t>(last_.report.maxima.memory_bytes);
  if (!outputs_) return;
  std::optional<SpillMetrics> spill;
  if (trainer().activation_store() != nullptr) spill = SpillMeter::of(last_.report);
  outputs_->write(StepMetrics{.step = state_.step,
                              .loss = last_.loss,
                              .cross_entropy = last_.losses.cross_entropy,
                              .balance_loss = last_.losses.balance,
                              .z_loss = last_.losses.z,
                              .grad_norm = last_.gradient_norm,
                              .learning_rate = last_.learning_rate,
                              .num_tokens = state_.num_tokens,
                              .step_seconds = seconds,
                              .tokens_per_second = tokens_per_second,
                              .model_flops_per_second = flops_per_token_ * tokens_per_second,
                              .memory_bytes = memory_bytes_,
                              .max_rows = state_.max_rows,
                              .load_max_over_mean = last_.load.max_over_mean,
                              .dropped_fraction = last_.load.dropped_fraction,
                              .spill = spill,
                              .load_by_layer = last_.load.by_layer});
}

bool Run::shows_layers(std::int64_t step) const {
  const std::int64_t every = config_.metrics.layers_every;
  return every > 0 && step % every == 0 && config_.experts.num_experts > 0 &&
         config_.experts.any_layer_has_experts(config_.model.num_layers);
}

void Run::write_layers(const std::vector<LayerSeconds>& seconds) {
  const std::vector<std::int64_t> layers = moe_layers_of(config_);
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const LayerLoad& load = last_.load.layers[i];
    LayerMetrics line{.step = state_.step,
                      .layer = layers[i],
                      .load_max_over_mean = load.max_over_mean,
                      .load_variation = load.variation,
                      .num_idle = load.num_idle,
                      .dropped_fraction = load.dropped_fraction,
                      .other_nodes_fraction = load.far_fraction,
                      .load_percent = load.percent_of_mean()};
    if (config_.experts.router.has_weights()) line.entropy = load.entropy;
    if (!seconds.empty()) {
      line.expert_seconds = seconds[i].experts;
      line.exchange_seconds = seconds[i].exchange;
      line.wait_seconds = seconds[i].wait;
    }
    outputs_->write(line);
  }
}

std::optional<std::int64_t> Run::worst_layer() const {
  if (last_.load.layers.size() < 2) return std::nullopt;
  return moe_layers_of(config_)[static_cast<std::size_t>(last_.load.worst)];
}

void Run::evaluate() {
  watchdog_.enter(RunSection::evaluation);
  const EvaluationMetrics result = validation_->evaluate(trainer(), state_.step);
  validation_loss_ = result.validation_loss;
  if (outputs_) outputs_->write(result);
  note(to_sentence(result));
  // It may have taken as long as many steps: the next report would be late for a signal.
  double& signal = last_.report.maxima.stop_signal;
  signal = std::max(signal, static_cast<double>(stop_.number()));
  world_.all_reduce_values({&signal, 1}, ReduceOp::max);
}

void Run::save() {
  watchdog_.enter(RunSection::checkpoint);
  const StopSignal::Saving saving(stop_);
  if (routing_trace_) note_routing(routing_trace_->finish());
  const SaveResult saved = save_checkpoint({.folder = checkpoints_,
                                            .state = state_,
                                            .configuration = start_.configuration.yaml,
                                            .course = course_.id,
                                            .lineage = lineage_,
                                            .corpus = corpus_,
                                            .arithmetic = arithmetic_,
                                            .keep = config_.checkpoint.keep},
                                           trainer().store(), trainer().optimizer(), world_,
                                           [this](const std::string& text) { note(text); });
  saved_step_ = state_.step;
  checkpoint_path_ = saved.path;
  note(fmt::format("saved {} ({}, {:.1f} s)", saved.path,
                   format_bytes(static_cast<double>(saved.num_bytes)), saved.seconds));
}

bool Run::stop_agreed() {
  const double number = last_.report.maxima.stop_signal;
  stopped_by_ = StopSignal::name_of(static_cast<int>(number));
  return number > 0;
}

std::string Run::describe(const Plan& plan) const {
  const RankPlan& fullest = plan.fullest();
  return fmt::format(
      "{} parameters, {} active; {} ranks (data {}, expert {}) on {}; {} a rank with balanced "
      "routing; {} tokens a step in {} micro-steps{}",
      format_count(static_cast<double>(plan.num_parameters)),
      format_count(static_cast<double>(plan.num_active_parameters)), plan.num_ranks,
      plan.parallel.data, plan.parallel.expert, describe_device(*rank_->device),
      format_bytes(static_cast<double>(fullest.peak_bytes)), plan.tokens_per_step,
      plan.num_micro_steps, rank_->card_world != nullptr ? "; NCCL between cards" : "");
}

void Run::note(const std::string& text) {
  log_.info(text);
  if (world_.rank() != 0) return;
  if (progress_) {
    progress_->note(text);
  } else {
    std::cout << text << std::endl;
  }
}

void Run::summarize(std::int64_t first_step, double seconds, bool stopped) {
  if (folder_ == nullptr) return;
  progress_->finish();
  if (stopped) std::cout << "Stopped by " << stopped_by_ << ".\n";
  const double rate = progress_->tokens_per_second();
  RunSummary summary{
      .first_step = first_step,
      .last_step = state_.step,
      .num_steps = config_.train.num_steps,
      .loss = last_.loss,
      .validation_loss = validation_loss_,
      .num_tokens =
          (state_.step - first_step) * config_.train.global_batch * config_.model.sequence_length,
      .seconds = seconds,
      .tokens_per_second = rate,
      .peak_share = peak_ > 0 ? std::optional(rate * flops_per_token_ / peak_) : std::nullopt,
      .memory_bytes = memory_bytes_,
      .checkpoint = checkpoint_path_,
      .next = {}};
  const std::string run = quote_for_shell(folder_->path());
  if (state_.step < config_.train.num_steps)
    summary.next.push_back("continue: " + start_.continue_command);
  summary.next.push_back(
      fmt::format("generate: {} generate {} --prompt TEXT", start_.program, run));
  summary.next.push_back(fmt::format("report: {} report {} --output {}", start_.program, run,
                                     quote_for_shell(folder_->path() + "/report.html")));
  if (!start_.plot_script.empty())
    summary.next.push_back(fmt::format("pictures: {} {}", start_.plot_script, run));
  std::cout << format_summary(summary) << std::flush;
}

}  // namespace switchyard
