#include "experts/router.hpp"

#include <cmath>
#include <utility>

#include "kernels/balance.hpp"
#include "kernels/choice_counts.hpp"
#include "kernels/elementwise.hpp"
#include "tensor/error.hpp"

namespace switchyard {

namespace {

std::int64_t num_sequences_of(std::int64_t num_tokens, const Pass& pass) {
  expect(pass.sequence_length > 0 && num_tokens % pass.sequence_length == 0,
         "a micro-batch of whole sequences");
  return num_tokens / pass.sequence_length;
}

}  // namespace

GateRecord::GateRecord(Device& device, const ExpertsConfig& config, std::int64_t num_tokens,
                       std::int64_t num_sequences)
    : scores(device, Purpose::activation, DType::f32, {num_tokens, config.num_experts}),
      lse(device, Purpose::activation, DType::f32, {num_tokens}),
      indices(device, Purpose::activation, DType::i32, {num_tokens, config.top_k}),
      weights(device, Purpose::activation, DType::f32, {num_tokens, config.top_k}),
      counts(device, Purpose::activation, DType::i32, {num_sequences, config.num_experts}),
      score_sums(device, Purpose::activation, DType::f32, {num_sequences, config.num_experts}) {}

void GateRecord::for_each_tensor(const RecordVisitor& visit) {
  visit_tensor(visit, "scores", scores);
  visit_tensor(visit, "lse", lse);
  visit_tensor(visit, "indices", indices);
  visit_tensor(visit, "weights", weights);
  visit_tensor(visit, "counts", counts);
  visit_tensor(visit, "score_sums", score_sums);
}

RouterScratch::RouterScratch(Device& device, const ExpertsConfig& config, std::int64_t hidden,
                             DType compute, std::int64_t num_tokens, std::int64_t num_sequences)
    : logits(device, Purpose::workspace, DType::f32, {num_tokens, config.num_experts}),
      dweights(device, Purpose::workspace, DType::f32, {num_tokens, config.top_k}),
      slopes(device, Purpose::workspace, DType::f32, {num_sequences, config.num_experts}),
      pool(device, Purpose::workspace, DType::i64, {config.num_experts}),
      hidden_f32(TokenProjection::make_room(device, num_tokens, hidden, compute)) {}

Router::Router(ParameterStore& store, const std::string& prefix, const ExpertsConfig& config,
               RouterParts parts, std::int64_t hidden, std::int64_t num_layers, float initial_std)
    : config_(config),
      num_layers_(
          config.balance_reduction == BalanceReduction::mean ? static_cast<double>(num_layers) : 1),
      context_(store.mesh().group(Axis::context)),
      all_ranks_(store.mesh().group(Axis::dense_replica)),
      projection_(store,
                  {.name = prefix + ".router.weight",
                   .global_shape = {config.num_experts, hidden},
                   .keys = "experts.num_experts, experts.every, experts.first_dense, model.hidden",
                   .replicas = Axis::dense_replica,
                   .initial_std = initial_std}),
      parts_(std::move(parts)) {
  if (config.bias_rate > 0)
    bias_ = &store.add({.name = prefix + ".router.bias",
                        .global_shape = {config.num_experts},
                        .keys = "experts.bias_rate, experts.num_experts",
                        .replicas = Axis::dense_replica,
                        .kind = ParameterKind::state,
                        .decay = false,
                        .initial = Initial::zeros});
}

void Router::forward(const TensorView& x, GateRecord& gate, RouterScratch& scratch,
                     const Pass& pass) const {
  const std::int64_t num_tokens = x.rows();
  const std::int64_t num_sequences = num_sequences_of(num_tokens, pass);
  const TensorView logits = scratch.logits->slice_rows(0, num_tokens);
  const TensorView scores = gate.scores->slice_rows(0, num_tokens);
  const TensorView indices = gate.indices->slice_rows(0, num_tokens);

  projection_.forward(x, logits, scratch.hidden_f32);
  const RoutedTokens tokens{x, pass, bias()};
  parts_.score->forward(tokens, logits, scores, gate.lse->slice_rows(0, num_tokens));
  parts_.select->choose(tokens, scores, indices);
  parts_.weigh->forward(scores, indices, gate.weights->slice_rows(0, num_tokens));
  const TensorView counts = gate.counts->slice_rows(0, num_sequences);
  kernels::balance_statistics(scores, indices, pass.sequence_length, counts,
                              gate.score_sums->slice_rows(0, num_sequences));
  count(counts, scratch, pass);
}

// An evaluation has no steps, and nobody asks for its balance beyond a sequence.
Router::Pool Router::pool_of(const Pass& pass) const {
  if (config_.balance_scope == BalanceScope::sequence || !pass.training)
    return {pass.whole_length(), pass.num_global_sequences};
  const double micro_steps =
      config_.balance_scope == BalanceScope::step ? static_cast<double>(pass.micro_step + 1) : 1;
  const double num_tokens =
      pass.num_global_tokens / static_cast<double>(pass.num_micro_steps) * micro_steps;
  return {std::llround(num_tokens), pass.num_global_tokens / num_tokens};
}

void Router::count(const TensorView& counts, RouterScratch& scratch, const Pass& pass) const {
  const bool pools = config_.balance_scope != BalanceScope::sequence && pass.training;
  if (pools || !scratch.step_counts.empty()) kernels::sum_counts(counts, scratch.pool);
  if (!scratch.step_counts.empty()) kernels::add_counts(scratch.pool, scratch.step_counts);
  if (!pools) {
    if (context_.size() > 1) context_.all_reduce(counts, ReduceOp::sum);
    return;
  }
  if (config_.balance_scope == BalanceScope::step) kernels::copy(scratch.step_counts, scratch.pool);
  all_ranks_.all_reduce(scratch.pool, ReduceOp::sum);
  kernels::spread_counts(scratch.pool, counts);
}

void Router::add_losses(const GateRecord& gate, std::int64_t num_tokens, const Pass& pass,
                        const TensorView& losses) const {
  const std::int64_t num_sequences = num_sequences_of(num_tokens, pass);
  const Pool pool = pool_of(pass);
  kernels::add_auxiliary_losses(gate.counts->slice_rows(0, num_sequences),
                                gate.score_sums->slice_rows(0, num_sequences),
                                gate.lse->slice_rows(0, num_tokens),
                                {.top_k = config_.top_k,
                                 .sequence_length = pool.num_tokens,
                                 .num_sequences = pool.times,
                                 .num_tokens = pass.num_global_tokens},
                                losses);
}

void Router::backward(const TensorView& x, const GateRecord& gate, RouterScratch& scratch,
                      const TensorView& dx, const Pass& pass) const {
  const std::int64_t num_tokens = x.rows();
  const std::int64_t num_sequences = num_sequences_of(num_tokens, pass);
  const TensorView dlogits = scratch.logits->slice_rows(0, num_tokens);
  const TensorView slopes = scratch.slopes->slice_rows(0, num_sequences);
  const Pool pool = pool_of(pass);
  kernels::balance_slopes(gate.counts->slice_rows(0, num_sequences), config_.top_k, pool.num_tokens,
                          config_.balance_weight / (pool.times * num_layers_), slopes);
  const double z_slope = config_.z_weight / (pass.num_global_tokens * num_layers_);
  const TensorView scores = gate.scores->slice_rows(0, num_tokens);
  const TensorView indices = gate.indices->slice_rows(0, num_tokens);
  const TensorView dchosen = scratch.dweights->slice_rows(0, num_tokens);
  parts_.weigh->backward(dchosen, scores, indices, dchosen);
  parts_.score->backward({x, pass, bias()},
                         {.dchosen = dchosen,
                          .indices = indices,
                          .slopes = slopes,
                          .z_slope = static_cast<float>(z_slope)},
                         scores, gate.lse->slice_rows(0, num_tokens), dlogits);
  projection_.backward(dlogits, x, dx, scratch.hidden_f32, pass);
}

void Router::move_bias(const TensorView& counts, const TensorView& decision) const {
  if (bias_ == nullptr) return;
  kernels::move_selection_bias(counts, decision, static_cast<float>(config_.bias_rate), bias());
}

}  // namespace switchyard
