#include "trainer/trainer.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/host_copy.hpp"
#include "kernels/rows/right_answers.hpp"
#include "parallel/group/collective_error.hpp"
#include "tensor/error.hpp"
#include "trainer/exact_units.hpp"
#include "trainer/placement/layer_placements.hpp"
#include "trainer/schedule.hpp"

namespace switchyard {

namespace {

ParameterStore& allocated(ParameterStore& store, std::int64_t seed) {
  store.allocate();
  store.initialize(static_cast<std::uint64_t>(seed));
  return store;
}

std::unique_ptr<ExpertMover> make_mover(ParameterStore& store, AdamW& optimizer,
                                        std::vector<Placement>& placements, const Config& config) {
  const bool moves = config.experts.placement.every > 0 && config.parallel.expert > 1 &&
                     config.experts.any_layer_has_experts(config.model.num_layers);
  if (!moves) return nullptr;
  return std::make_unique<ExpertMover>(store, optimizer, placements, config.experts.placement);
}

}  // namespace

DType compute_dtype(const RunConfig& run) {
  return run.precision == Precision::bf16 ? DType::bf16 : DType::f32;
}

Trainer::Trainer(Device& device, const Mesh& mesh, const Config& config,
                 std::int64_t vocab_size_used, std::int64_t planned_rows,
                 std::optional<Placement> placement)
    : device_(device),
      mesh_(mesh),
      config_(config),
      layout_(batch_layout_of(config, mesh)),
      placements_(layer_placements(
          config, placement ? *placement : placement_of(config.experts, config.parallel.expert))),
      store_(device, mesh, exact_sum_of(config)),
      model_(store_, placements_, config.model, config.experts, compute_dtype(config.run),
             static_cast<std::uint64_t>(config.run.seed), vocab_size_used),
      sync_(allocated(store_, config.run.seed)),
      order_(store_.num_layers()),
      optimizer_(store_, config.optimizer),
      mover_(make_mover(store_, optimizer_, placements_, config)),
      activation_store_(make_activation_store(device, config, mesh.group(Axis::world).rank())),
      activations_(model_, layout_.micro_batch, sequence_split_of(config, mesh.config()),
                   activation_options(config, activation_store_.get(), planned_rows)),
      routing_record_(config.trace.traces_routing()
                          ? std::make_unique<RoutingRecord>(device, config, layout_)
                          : nullptr),
      objective_(layout_),
      batch_(device, layout_, objective_, mesh.degree(Axis::context) > 1,
             config.data.restart_positions),
      report_(device, mesh.group(Axis::world)) {
  if (config.measures_accuracy())
    accuracy_.emplace(device, layout_.micro_batch * layout_.local_length());
  exact_ = exact_figures_of(config, layout_.global_batch, model_.num_moe_layers());
  loss_scale_ = loss_scale_of(layout_.global_batch);
  model_.pack_weights();
}

// What exact sums over a step or an evaluation are still to be divided by.
std::array<double, 3> Trainer::loss_scale_of(std::int64_t num_sequences) const {
  if (!config_.numerics.exact) return {1, 1, 1};
  const auto sequences = static_cast<double>(num_sequences);
  const auto layers = static_cast<double>(std::max<std::int64_t>(model_.num_moe_layers(), 1));
  const double tokens = sequences * static_cast<double>(layout_.sequence_length);
  const double weight = objective_.total_weight(num_sequences);
  return {1 / (weight > 0 ? weight : tokens), 1 / (sequences * layers), 1 / (tokens * layers)};
}

StepResult Trainer::step(std::int64_t step, BatchSource& source, const AddToReport& add) {
  device_.profile().enter_step(step);
  Pass pass = pass_of(step, true);
  activations_.clear_loads();
  report_.begin();
  store_.zero_gradients();
  const std::int64_t num_micro_steps = layout_.num_micro_steps();
  for (std::int64_t num_taken = 0; num_taken < num_micro_steps;) {
    const bool is_last = num_taken + 1 == num_micro_steps;
    const bool stands_for_others = takes_alike_once_ && num_taken == 1 && !is_last;
    const std::int64_t times = stands_for_others ? num_micro_steps - 2 : 1;
    const Profile::Repeat repeat(device_.profile(), times);
    const TokenBatch& batch = next_batch(source, step);
    pass.target_weight = objective_.total_weight(layout_.global_batch);
    pass.micro_step = num_taken;
    if (is_last) sync_.arm();
    model_.train(batch, activations_, pass, report_.losses());
    num_taken += times;
  }
  {
    Profile::Scope scope(device_.profile(), Part::reduction);
    sync_.finish();
    exchange_report(add);
  }
  const double learning_rate = learning_rate_at(config_.optimizer, config_.train.num_steps, step);
  update(step, learning_rate);
  StepResult result = read_report();
  result.learning_rate = learning_rate;
  require_finite(result, step);
  move_experts(step, result);
  return result;
}

// Experts that had many rows since the last time leave ranks that had more than others.
void Trainer::move_experts(std::int64_t step, StepResult& result) {
  if (!mover_ || device_.is_plan()) return;
  mover_->count(activations_.loads());
  if (!mover_->is_due(step)) return;
  const Profile::Scope scope(device_.profile(), Part::optimizer);
  result.moved = mover_->move();
  if (result.moved->num_layers == 0) return;
  sync_.holders_changed();
  optimizer_.holders_changed();
  model_.pack_weights();
}

EvaluationResult Trainer::evaluate(const FixedBatches& batches) {
  Pass pass = pass_of(0, false);
  EvaluationResult result;
  result.num_tokens = static_cast<std::int64_t>(batches.num_targets());
  pass.num_global_sequences = static_cast<double>(batches.num_sequences());
  pass.num_global_tokens = static_cast<double>(batches.num_sequences() * layout_.sequence_length);
  pass.target_weight = batches.num_targets();
  pass.exact = exact_figures_of(config_, batches.num_sequences(), model_.num_moe_layers());
  report_.begin();
  if (accuracy_) accuracy_->begin();
  for (std::int64_t micro_step = 0; micro_step < batches.num_micro_steps(); ++micro_step) {
    const Batch batch = batches.batch(micro_step);
    pass.num_padding = batch.num_padding;
    const TokenBatch& tokens = upload(batch);
    const Head::SeeLogits see =
        accuracy_ ? accuracy_->watch(tokens, model_.vocab_size_used()) : Head::SeeLogits();
    model_.evaluate(tokens, activations_, pass, report_.losses(), {}, see);
    if (accuracy_) accuracy_->add();
  }
  kernels::copy_to_host<double>(report_.losses().slice_rows(0, 1), {&result.loss, 1});
  mesh_.group(Axis::dense_replica).all_reduce_values({&result.loss, 1}, ReduceOp::sum);
  result.loss *= loss_scale_of(batches.num_sequences())[0];
  if (!accuracy_) return result;
  double num_right = accuracy_->num_right();
  mesh_.group(Axis::dense_replica).all_reduce_values({&num_right, 1}, ReduceOp::sum);
  result.accuracy = num_right / batches.num_targets();
  return result;
}

TokenScores Trainer::score(const Batch& batch) {
  Pass pass = pass_of(0, false);
  pass.num_padding = batch.num_padding;
  const std::size_t num_tokens = batch.tokens.size();
  TokenScores scores{std::vector<float>(num_tokens), std::vector<bool>(num_tokens)};
  const Tensor losses(device_, Purpose::workspace, DType::f32,
                      {static_cast<std::int64_t>(num_tokens)});
  const Tensor right(device_, Purpose::workspace, DType::f32, losses->shape);
  const TokenBatch& tokens = upload(batch);
  const auto see = [&](std::int64_t begin, const TensorView& logits) {
    const std::int64_t end = begin + logits.rows();
    kernels::right_answers(logits, tokens.targets.flat().slice_rows(begin, end),
                           model_.vocab_size_used(), {}, right->slice_rows(begin, end));
  };
  report_.begin();
  model_.evaluate(tokens, activations_, pass, report_.losses(), losses, see);
  kernels::copy_to_host<float>(losses, scores.losses);
  const kernels::HostContents<float> is_right(right);
  std::transform(is_right.span().begin(), is_right.span().end(), scores.is_greedy.begin(),
                 [](float value) { return value > 0; });
  return scores;
}

BatchLayout Trainer::batch_layout() const {
  return layout_;
}

std::int64_t Trainer::agree_on_rows() {
  std::int64_t rows = activations_.max_rows();
  mesh_.group(Axis::world).all_reduce_values(std::span(&rows, 1), ReduceOp::max);
  activations_.reserve_rows(rows);
  return rows;
}

std::int64_t Trainer::peak_memory_bytes() const {
  double bytes = static_cast<double>(device_.memory().peak_total());
  mesh_.group(Axis::world).all_reduce_values({&bytes, 1}, ReduceOp::max);
  return static_cast<std::int64_t>(bytes);
}

Pass Trainer::pass_of(std::int64_t step, bool training) {
  Pass pass;
  pass.training = training;
  pass.seed = static_cast<std::uint64_t>(config_.run.seed);
  pass.step = step;
  batch_.describe(pass);
  pass.num_global_sequences = static_cast<double>(layout_.global_batch);
  pass.num_global_tokens = static_cast<double>(layout_.global_batch * layout_.sequence_length);
  pass.num_micro_steps = layout_.num_micro_steps();
  pass.target_weight = objective_.total_weight(layout_.global_batch);
  pass.exact = exact_;
  pass.sync = training ? &sync_ : nullptr;
  pass.order = &order_;
  return pass;
}

const TokenBatch& Trainer::next_batch(BatchSource& source, std::int64_t step) {
  Profile::Scope scope(device_.profile(), Part::data);
  const Batch batch = source.next();
  if (config_.experts.router.replays() && !device_.is_plan()) {
    expect(replay_ != nullptr, "a trace to replay");
    replay_->load(step, batch, activations_.replayed());
  }
  return upload(batch);
}

const TokenBatch& Trainer::upload(const Batch& batch) {
  batch_.upload(batch);
  if (config_.data.document_mask) activations_.set_documents(batch.document_starts);
  return batch_.tokens();
}

// Each rank holds the sums of its own tokens and of its own part of the gradient.
void Trainer::exchange_report(const AddToReport& add) {
  optimizer_.add_squared_norm(report_.squared_norm());
  if (store_.exact()) kernels::count_nonzero(store_.overflows(), report_.num_overflows());
  HostFigures mine;
  mine.maxima.max_rows = static_cast<double>(activations_.max_rows());
  mine.maxima.memory_bytes = static_cast<double>(device_.memory().peak_total());
  if (add) add(mine);
  const ExpertsConfig& experts = config_.experts;
  const std::int64_t num_layers = model_.num_moe_layers();
  {
    const Profile::Scope scope(device_.profile(), Part::optimizer);
    report_.exchange(mine,
                     {.balance_weight = experts.reduced(experts.balance_weight, num_layers),
                      .z_weight = experts.reduced(experts.z_weight, num_layers),
                      .clip_norm = config_.optimizer.clip_norm,
                      .loss_scale = loss_scale_,
                      .most_square = store_.exact() ? kernels::SquareParts::most_square
                                                    : std::numeric_limits<double>::infinity()});
  }
  if (activations_.loads().empty()) return;
  const Profile::ControlScope control(device_.profile());
  for (const TensorView& counts :
       {activations_.loads(), activations_.choices(), activations_.margins()})
    if (!counts.empty()) mesh_.group(Axis::dense_replica).all_reduce(counts, ReduceOp::sum);
}

// What it changes, if anything, the device knows by now (StepReport::decision).
void Trainer::update(std::int64_t step, double learning_rate) {
  const Profile::Scope scope(device_.profile(), Part::optimizer);
  optimizer_.update(step + earlier_updates_, learning_rate, report_.decision());
  sync_.gather_values();
  model_.move_biases(activations_.bias_counts(), report_.decision());
  model_.pack_weights();
}

StepResult Trainer::read_report() {
  const Profile::Scope scope(device_.profile(), Part::optimizer);
  StepResult result;
  result.report = report_.read();
  const GatheredReport::Sums& sums = result.report.sums;
  result.losses = {sums.cross_entropy, sums.balance, sums.z};
  result.loss = result.report.loss;
  result.gradient_norm = result.report.gradient_norm;
  result.load =
      read_load(activations_.loads(), placements_, layout_.global_batch * layout_.sequence_length);
  take_rows(result.report);
  return result;
}

// All ranks have room for the rows of the fullest. Where that grew, which is seldom and on all
// ranks alike, what the memory comes to is known only now.
void Trainer::take_rows(GatheredReport& report) {
  const auto rows = static_cast<std::int64_t>(report.maxima.max_rows);
  if (rows <= agreed_rows_) return;
  agreed_rows_ = rows;
  activations_.reserve_rows(rows);
  report.maxima.memory_bytes = static_cast<double>(peak_memory_bytes());
}

std::string Trainer::overflowed() const {
  std::vector<std::int32_t> flags(store_.parameters().size());
  kernels::copy_to_host<std::int32_t>(store_.overflows(), flags);
  std::vector<std::int64_t> anywhere(flags.begin(), flags.end());
  mesh_.group(Axis::world).all_reduce_values(std::span(anywhere), ReduceOp::max);
  constexpr std::size_t most_named = 3;
  std::vector<std::string> names;
  for (const Parameter& parameter : store_.parameters())
    if (anywhere[static_cast<std::size_t>(parameter.index())] != 0)
      names.push_back(parameter.name());
  const std::size_t num_more = names.size() - std::min(names.size(), most_named);
  names.resize(names.size() - num_more);
  return fmt::format("{}{}", fmt::join(names, ", "),
                     num_more > 0 ? fmt::format(" and {} more", num_more) : "");
}

void Trainer::require_finite(const StepResult& result, std::int64_t step) const {
  if (result.report.sums.num_overflows > 0)
    throw Collective<NumericalError>(fmt::format(
        "step {}: the gradient of {} has a part that is not finite, or too large for an exact sum "
        "(above {:.3g}); the weights were left as they were before this step. Try a lower "
        "optimizer.learning_rate, a longer optimizer.warmup_steps, or a smaller "
        "numerics.fraction_bits than {}",
        step, overflowed(), store_.exact()->most_of_unit, store_.exact()->fraction_bits));
  if (std::isfinite(result.loss) && std::isfinite(result.gradient_norm)) return;
  throw Collective<NumericalError>(fmt::format(
      "step {}: loss {} and gradient norm {} are not both finite; the weights were left as they "
      "were before this step. Try a lower optimizer.learning_rate, a longer "
      "optimizer.warmup_steps, or precision fp32",
      step, result.loss, result.gradient_norm));
}

}  // namespace switchyard
