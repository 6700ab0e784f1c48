// How a run begins: its device and plan, the model and the data, where it goes on from, and its
// record.
#include <fmt/core.h>

#include <filesystem>
#include <iostream>
#include <system_error>
#include <utility>

#include "kernels/peak.hpp"
#include "kernels/threads.hpp"
#include "trainer/agreement.hpp"
#include "trainer/checkpoint/comparison.hpp"
#include "trainer/checkpoint/kept_tokenizer.hpp"
#include "trainer/run/run.hpp"
#include "trainer/run_device.hpp"

namespace switchyard {

void Run::start(const TokenFile& tokens) {
  record_start();
  std::unique_ptr<Device> device = make_device_together(world_, config_);
  plan_ = make_plan(config_, world_.size(), tokens.vocab_size(), 0,
                    start_.machine.profile ? StepRecords::alike_once : StepRecords::none);
  const Plan& plan = plan_;
  vocab_size_ = tokens.vocab_size();
  require_memory(world_, config_, plan);
  flops_per_token_ = plan.step_flops() / static_cast<double>(plan.tokens_per_step);
  rank_ = std::make_unique<RankState>(world_, collectives_, config_, std::move(device),
                                      tokens.vocab_size());
  rank_->device->profile().publish_to(collectives_.place());
  const BatchLayout layout = trainer().batch_layout();
  run_together(world_, [&] {
    loader_ = std::make_unique<Loader>(config_.data.path, Split::train, layout,
                                       static_cast<std::uint64_t>(config_.run.seed),
                                       parse_mixture(config_.data.mixture));
    if (config_.evaluate.every > 0)
      validation_ = std::make_unique<Validation>(tokens, config_, layout);
  });
  if (validation_)
    for (const std::string& path : validation_->without_split())
      note(
          fmt::format("{} of data.mixture has no validation split of a whole sequence: it has no "
                      "validation loss of its own",
                      path));
  if (tokens.has_loss_mask() && !config_.data.loss_mask)
    note(fmt::format("{} has a loss mask, which data.loss_mask: false leaves unused",
                     tokens.path()));
  if (!config_.capture.steps.empty()) capture_ = std::make_unique<Capture>(config_, layout, world_);
  if (!config_.profile.steps.empty())
    trace_ = std::make_unique<StepTrace>(config_.profile.steps, config_.run.output + "/traces",
                                         world_, collectives_, *rank_->device);
  layer_meter_ = std::make_unique<LayerMeter>(*rank_->device, moe_layers_of(config_), world_);
  measure_peak();
  run_together(world_,
               [&] { corpus_ = corpus_record(tokens, parse_mixture(config_.data.mixture)); });
  if (config_.numerics.exact) arithmetic_ = arithmetic_record(world_);
  resume(tokens);
  const std::optional<RestartMetrics> restart = find_restart();
  prepare_routing();
  loader_->seek(state_.step, state_.data_position);
  source_ = std::make_unique<LoaderSource>(*loader_);
  run_together(world_, [&] {
    if (folder_ == nullptr) return;
    // Not before it is known that this run may go on from what is there.
    if (folder_->marker().course != course_.id)
      folder_->mark({.course = course_.id, .begun_by = course_.begun_by});
    folder_->write_config(start_.configuration.yaml);
    record_ = record_of_start();
    prediction_ = std::make_unique<PredictionMeter>(
        plan_, config_, start_.machine,
        RanksOfHost{world_.topology().num_local_ranks(), kernels::num_threads()},
        rank_->device->profile());
    write_record();
    keep_tokenizer(folder_->path(), tokens.tokenizer());
  });
  if (folder_ == nullptr) return;
  outputs_ = std::make_unique<RunOutputs>(folder_->path(), config_.metrics, state_.step,
                                          course_.is_new, rank_->device->profile());
  if (restart) outputs_->write(*restart);
  RunProgress::Columns columns;
  if (is_live_terminal(STDOUT_FILENO)) columns = [] { return terminal_columns(STDOUT_FILENO); };
  progress_ = std::make_unique<RunProgress>(std::cout, std::move(columns), state_.step + 1,
                                            config_.train.num_steps);
  note(describe(plan));
}

void Run::prepare_routing() {
  if (config_.experts.router.replays() && trainer().model().num_moe_layers() > 0) {
    std::unique_ptr<RoutingReplay> replay;
    run_together(world_, [&] {
      replay = std::make_unique<RoutingReplay>(config_, trainer().batch_layout());
      replay->require(state_.step + 1, config_.train.num_steps, state_.data_position);
    });
    trainer().replay_routing(std::move(replay));
  }
  if (config_.trace.traces_routing())
    routing_trace_ =
        std::make_unique<TraceWriter>(config_, trainer().batch_layout(), state_.step, world_);
}

void Run::measure_peak() {
  const double seconds = 0.05;
  peak_ = kernels::measure_product_peak(*rank_->device, compute_dtype(config_.run), seconds);
  world_.all_reduce_values({&peak_, 1}, ReduceOp::sum);
}

void Run::resume(const TokenFile& tokens) {
  if (!course_.note.empty()) note(course_.note);
  const std::optional<Resumed> resumed =
      resume_run(config_, start_.configuration, tokens, arithmetic_, checkpoints_, trainer(),
                 world_, [this](const std::string& text) { note(text); });
  if (!resumed) return begin_from(tokens);
  state_ = resumed->state;
  lineage_ = resumed->lineage;
  saved_step_ = state_.step;
  checkpoint_path_ = resumed->path;
  note(fmt::format("resuming from step {} ({})", state_.step, checkpoint_path_));
}

void Run::begin_from(const TokenFile& tokens) {
  const std::optional<Resumed> started =
      start_run(config_, start_.configuration, tokens, trainer(), world_,
                [this](const std::string& text) { note(text); });
  if (!started) return;
  state_ = started->state;
  lineage_ = started->lineage;
  const Ancestor& from = lineage_.back();
  note(fmt::format("beginning with {} of step {} ({}); {}", from.taken, from.step, from.path,
                   config_.checkpoint.start_with == StartWith::all
                       ? "step, schedule and position in the data go on from there"
                       : "step, schedule and position in the data begin anew"));
}

void Run::record_start() {
  run_together(world_, [&] {
    if (folder_ != nullptr)
      history_ = std::make_unique<RestartHistory>(folder_->path(), newest_step_in(checkpoints_),
                                                  course_.is_new, unix_seconds());
  });
}

std::optional<RestartMetrics> Run::find_restart() {
  std::optional<RestartMetrics> restart;
  run_together(world_, [&] {
    if (history_) restart = history_->begin(state_.step, checkpoint_path_, unix_seconds());
  });
  if (restart) note(to_sentence(*restart));
  return restart;
}

RunRecord Run::record_of_start() const {
  std::error_code ignored;
  return {.command = start_.command,
          .directory = std::filesystem::current_path(ignored).string(),
          .version = start_.version,
          .device = describe_device(*rank_->device),
          .num_threads = kernels::num_threads(),
          .vocab_size = vocab_size_,
          .first_step = state_.step,
          .peak_flops_per_second = peak_};
}

}  // namespace switchyard
