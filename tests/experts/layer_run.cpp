#include "tests/experts/layer_run.hpp"

#include <fmt/core.h>

#include <numeric>

#include "kernels/elementwise.hpp"
#include "kernels/select.hpp"
#include "tests/experts/numbers.hpp"
#include "tests/support/tested_device.hpp"

namespace switchyard::test {

namespace {

constexpr float weight_std = 0.02f;

RandomKey dropout_key() {
  return random_key(99, "dropout layers.0.experts");
}

// The mask of all tokens in one piece, as one rank would draw it.
void write_positions(const TensorView& positions, std::int64_t length) {
  for (std::int64_t t = 0; t < positions.numel(); ++t)
    positions.as<std::int32_t>()[t] = static_cast<std::int32_t>(t % length);
}

Doubles whole_mask(const LayerCase& c) {
  const std::unique_ptr<Device> device = make_tested_device();
  Tensor ones(*device, Purpose::workspace, DType::f32, {c.num_tokens * c.top_k, c.hidden});
  Tensor ids(*device, Purpose::workspace, DType::i64, {c.num_sequences});
  std::ranges::fill(ones->span<float>(), 1.0f);
  std::iota(ids->as<std::int64_t>(), ids->as<std::int64_t>() + c.num_sequences, 0);
  const Tensor positions(*device, Purpose::workspace, DType::i32, {c.num_tokens});
  write_positions(positions, c.sequence_length);
  kernels::dropout(ones, static_cast<float>(c.dropout),
                   {.key = dropout_key(),
                    .step = c.step,
                    .sequence_length = c.sequence_length,
                    .positions = positions,
                    .copies = static_cast<int>(c.top_k)},
                   ids);
  return to_doubles(ones);
}

// Whether choice j of the t-th token of the whole problem is dropped: of every fifth token all are.
bool is_dropped(std::int64_t t, std::int64_t j) {
  return t % 5 == 2 || (t * 7 + j) % 3 == 0;
}

// A part of a router that the program does not have: top-k of which some choices are dropped, by
// the identity of the token.
class DroppingSelect final : public Select {
 public:
  void choose(const RoutedTokens& tokens, const TensorView& scores,
              const TensorView& indices) const override {
    kernels::select_top_k(scores, indices);
    if (scores.device->is_plan()) return;
    const Pass& pass = tokens.pass;
    for (std::int64_t t = 0; t < scores.rows(); ++t)
      for (std::int64_t j = 0; j < indices.cols(); ++j)
        if (is_dropped(pass.sequence_ids.as<std::int64_t>()[t / pass.sequence_length] *
                               pass.sequence_length +
                           pass.positions.as<std::int32_t>()[t],
                       j))
          indices.row<std::int32_t>(t)[j] = -1;
  }
};

RouterParts parts_of(const LayerCase& c) {
  RouterParts parts = make_router_parts(c.config());
  if (c.drops) parts.select = std::make_unique<DroppingSelect>();
  return parts;
}

Doubles router_weight(const LayerCase& c) {
  Doubles router =
      random_doubles("router", static_cast<std::size_t>(c.num_experts * c.hidden), 0.5);
  const std::size_t last = static_cast<std::size_t>((c.num_experts - 1) * c.hidden);
  if (c.routing == Routing::all_to_last_expert) router[last] += 8;
  if (c.routing == Routing::none_to_first_expert) router[0] -= 8;
  round_to(DType::f32, router);
  return router;
}

}  // namespace

std::string LayerCase::describe() const {
  return fmt::format(
      "{} experts, top {}, normalize {}, routing {}, {}, dropout {}, drops {}, {} shared of {}, "
      "gate {}, balance over {}, {} of layers",
      num_experts, top_k, normalize, static_cast<int>(routing), name_of(dtype), dropout, drops,
      shared.number, shared.intermediate, name_of(shared.gate), name_of(scope), name_of(reduction));
}

ExpertsConfig LayerCase::config() const {
  ExpertsConfig config;
  config.num_experts = num_experts;
  config.top_k = top_k;
  config.intermediate = intermediate;
  config.normalize_top_k = normalize;
  config.balance_weight = 0.8;
  config.z_weight = 0.3;
  config.dropout = dropout;
  config.shared = shared;
  config.balance_scope = scope;
  config.balance_reduction = reduction;
  return config;
}

Problem::Problem(const LayerCase& c, const std::string& inputs) {
  const auto size = [](std::int64_t n) { return static_cast<std::size_t>(n); };
  moe.num_experts = size(c.num_experts);
  moe.top_k = size(c.top_k);
  moe.hidden = size(c.hidden);
  moe.intermediate = size(c.intermediate);
  moe.sequence_length = size(c.scope == BalanceScope::sequence ? c.sequence_length : c.num_tokens);
  moe.normalize = c.normalize;
  const ExpertsConfig config = c.config();
  moe.balance_weight = config.balance_weight;
  moe.z_weight = config.z_weight;
  if (config.balance_reduction == BalanceReduction::mean)
    for (double* weight : {&moe.balance_weight, &moe.z_weight})
      *weight /= static_cast<double>(c.num_layers);
  moe.router = router_weight(c);
  moe.gate_up = random_doubles("gate_up", size(c.num_experts * 2 * c.intermediate * c.hidden), 0.5);
  moe.down = random_doubles("down", size(c.num_experts * c.hidden * c.intermediate), 0.5);
  const std::int64_t shared_width = c.config().shared_width();
  moe.shared.intermediate = size(shared_width);
  moe.shared.gate_up = random_doubles("shared gate_up", size(2 * shared_width * c.hidden), 0.5);
  moe.shared.down = random_doubles("shared down", size(c.hidden * shared_width), 0.5);
  if (c.shared.gate == SharedGate::sigmoid)
    moe.shared.gate = random_doubles("shared gate", size(c.hidden), 0.5);
  round_to(DType::f32, moe.shared.gate);
  if (c.dropout > 0) moe.mask = whole_mask(c);
  for (std::int64_t slot = 0; c.drops && slot < c.num_tokens * c.top_k; ++slot)
    moe.dropped.push_back(is_dropped(slot / c.top_k, slot % c.top_k));
  x = random_doubles(inputs + " x", size(c.num_tokens * c.hidden), 1.0);
  dy = random_doubles(inputs + " dy", size(c.num_tokens * c.hidden), c.dy_scale);
  for (std::size_t t = 0; t < size(c.num_tokens); ++t) x[t * moe.hidden] = 1;
  for (Doubles* values : {&moe.gate_up, &moe.down, &moe.shared.gate_up, &moe.shared.down, &x, &dy})
    round_to(c.dtype, *values);
  solve();
}

void Problem::solve() {
  forward = moe.forward(x);
  gradients = moe.backward(x, dy, forward);
}

LayerRun::LayerRun(Device& device, const Mesh& mesh, const LayerCase& c, std::int64_t planned_rows)
    : device_(device),
      mesh_(mesh),
      case_(c),
      num_local_sequences_(c.num_sequences / mesh.degree(Axis::data)),
      num_local_tokens_(num_local_sequences_ * c.sequence_length),
      placement_(Placement::contiguous(c.num_experts, mesh.degree(Axis::expert))),
      store_(device, mesh),
      layer_(store_, "layers.0", c.config(), parts_of(c), c.hidden, c.dtype, placement_,
             c.num_layers, dropout_key(), weight_std, weight_std),
      capacity_(planned_rows),
      scratch_(device, c.config(), c.hidden, c.dtype, num_local_tokens_, num_local_sequences_,
               placement_, capacity_),
      step_counts_(device, Purpose::workspace, DType::i64, {c.num_experts}) {
  store_.allocate();
  layer_.pack_weights();
  begin_micro_step(0, 1);
}

void LayerRun::begin_micro_step(std::int64_t index, std::int64_t count) {
  micro_step_ = index;
  num_micro_steps_ = count;
  if (index == 0) kernels::fill_zero(step_counts_);
  if (case_.config().counts_step()) scratch_.router.step_counts = step_counts_;
}

LayerRun::Batch& LayerRun::add_batch() {
  Batch& batch = batches_.emplace_back();
  for (Tensor* tensor : {&batch.x, &batch.y, &batch.dy, &batch.dx})
    *tensor = Tensor(device_, Purpose::activation, case_.dtype, {num_local_tokens_, case_.hidden});
  batch.sequence_ids = Tensor(device_, Purpose::activation, DType::i64, {num_local_sequences_});
  batch.positions = Tensor(device_, Purpose::activation, DType::i32, {num_local_tokens_});
  batch.counts = Tensor(device_, Purpose::activation, DType::i32, {case_.num_experts});
  batch.saved = layer_.make_saved(num_local_tokens_, num_local_sequences_);
  batch.saved.for_each_tensor(capacity_.adder());
  batch.derived = layer_.make_derived(num_local_tokens_, true);
  batch.derived.for_each_tensor(0, capacity_.adder());
  return batch;
}

void LayerRun::load_weights(const ReferenceMoe& moe) {
  const auto load = [this](const std::string& name, const Doubles& whole) {
    const Parameter& target = parameter(name);
    for (std::int64_t row = 0; row < target.value().rows(); ++row)
      write(target.value()[row],
            whole.data() + target.slice().index_of(row) * target.value().cols());
  };
  load("layers.0.router.weight", moe.router);
  load("layers.0.experts.gate_up.weight", moe.gate_up);
  load("layers.0.experts.down.weight", moe.down);
  if (moe.shared.intermediate > 0) {
    load("layers.0.shared_experts.gate_up.weight", moe.shared.gate_up);
    load("layers.0.shared_experts.down.weight", moe.shared.down);
  }
  if (!moe.shared.gate.empty()) load("layers.0.shared_experts.gate.weight", moe.shared.gate);
  layer_.pack_weights();
  store_.zero_gradients();
}

void LayerRun::load_inputs(Batch& batch, const Problem& problem) const {
  write(batch.x, problem.x.data() + first_token() * case_.hidden);
  write(batch.dy, problem.dy.data() + first_token() * case_.hidden);
  std::int64_t* ids = batch.sequence_ids->as<std::int64_t>();
  std::iota(ids, ids + num_local_sequences_, first_token() / case_.sequence_length);
  write_positions(batch.positions, case_.sequence_length);
}

Pass LayerRun::pass_of(const Batch& batch) const {
  Pass pass;
  pass.step = case_.step;
  pass.sequence_length = case_.sequence_length;
  pass.sequence_ids = batch.sequence_ids;
  pass.positions = batch.positions;
  pass.micro_step = micro_step_;
  pass.num_micro_steps = num_micro_steps_;
  pass.num_global_tokens = static_cast<double>(case_.num_tokens * num_micro_steps_);
  pass.num_global_sequences = static_cast<double>(case_.num_sequences * num_micro_steps_);
  return pass;
}

void LayerRun::forward(Batch& batch) {
  kernels::fill_zero(scratch_.losses);
  layer_.forward(batch.x, batch.y, batch.saved, batch.derived, scratch_, capacity_, pass_of(batch));
  kernels::copy(scratch_.dispatch.counts, batch.counts);
}

void LayerRun::backward(Batch& batch) {
  layer_.backward(batch.dy, batch.x, batch.dx, batch.saved, batch.derived, scratch_,
                  pass_of(batch));
}

std::int64_t LayerRun::agree_on_rows() {
  std::int64_t rows = capacity_.rows();
  mesh_.group(Axis::expert).all_reduce_values(std::span(&rows, 1), ReduceOp::max);
  capacity_.require(rows);
  return rows;
}

void LayerRun::reduce_gradients() {
  for (const Parameter& each : store_.parameters())
    if (!each.gradient().empty())
      mesh_.group(each.spec().replicas).all_reduce(each.gradient(), ReduceOp::sum);
}

const Parameter& LayerRun::parameter(const std::string& name) const {
  for (const Parameter& each : store_.parameters())
    if (each.name() == name) return each;
  throw InternalError("no parameter " + name);
}

}  // namespace switchyard::test
