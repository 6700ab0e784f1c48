#include "tests/experts/layer_run.hpp"

#include <numeric>

#include "kernels/rows/elementwise.hpp"
#include "tests/experts/numbers.hpp"

namespace switchyard::test {

namespace {

constexpr float weight_std = 0.02f;

}  // namespace

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
  batch.tokens = Tensor(device_, Purpose::activation, DType::i32, {num_local_tokens_});
  batch.counts = Tensor(device_, Purpose::activation, DType::i32, {case_.num_experts});
  batch.saved = layer_.make_saved(num_local_tokens_, num_local_sequences_);
  batch.saved.for_each_tensor(capacity_.adder());
  batch.derived = layer_.make_derived(num_local_tokens_, num_local_sequences_, true);
  batch.derived.for_each_tensor(0, capacity_.adder());
  return batch;
}

void LayerRun::load_weights(const ReferenceMoe& moe, const Problem::Latent& latent) {
  const auto load = [this](const std::string& name, const Doubles& whole) {
    const Parameter& target = parameter(name);
    for (std::int64_t row = 0; row < target.value().rows(); ++row)
      write(target.value()[row],
            whole.data() + target.slice().index_of(row) * target.value().cols());
  };
  if (case_.router.has_weights()) load("layers.0.router.weight", moe.router);
  if (!moe.noise_router.empty()) load("layers.0.router.noise.weight", moe.noise_router);
  const bool is_latent = case_.latent > 0;
  load("layers.0.experts.gate_up.weight", is_latent ? latent.gate_up : moe.gate_up);
  load("layers.0.experts.down.weight", is_latent ? latent.expert_down : moe.down);
  if (is_latent) load("layers.0.latent.down.weight", latent.down);
  if (is_latent) load("layers.0.latent.up.weight", latent.up);
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
  for (std::int64_t t = 0; t < num_local_tokens_; ++t)
    batch.tokens->as<std::int32_t>()[t] = token_id(first_token() + t);
}

Pass LayerRun::pass_of(const Batch& batch, bool training) const {
  Pass pass;
  pass.training = training;
  pass.step = case_.step;
  pass.sequence_length = case_.sequence_length;
  pass.sequence_ids = batch.sequence_ids;
  pass.positions = batch.positions;
  pass.tokens = batch.tokens;
  pass.micro_step = micro_step_;
  pass.num_micro_steps = num_micro_steps_;
  pass.num_global_tokens = static_cast<double>(case_.num_tokens * num_micro_steps_);
  pass.num_global_sequences = static_cast<double>(case_.num_sequences * num_micro_steps_);
  return pass;
}

void LayerRun::forward(Batch& batch, bool training) {
  kernels::fill_zero(scratch_.losses);
  layer_.forward(batch.x, batch.y, batch.saved, batch.derived, scratch_, capacity_,
                 pass_of(batch, training));
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
