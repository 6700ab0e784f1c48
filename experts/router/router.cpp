#include "experts/router/router.hpp"

#include <cmath>
#include <utility>

#include "kernels/routing/balance.hpp"
#include "kernels/routing/bias_quantiles.hpp"
#include "kernels/routing/choice_counts.hpp"
#include "kernels/routing/permute.hpp"
#include "kernels/routing/router_noise.hpp"
#include "kernels/routing/routing_figures.hpp"
#include "kernels/rows/elementwise.hpp"
#include "tensor/error.hpp"

namespace switchyard {

namespace {

std::int64_t num_sequences_of(std::int64_t num_tokens, const Pass& pass) {
  expect(pass.sequence_length > 0 && num_tokens % pass.sequence_length == 0,
         "a micro-batch of whole sequences");
  return num_tokens / pass.sequence_length;
}

TensorView rows_of(const Tensor& tensor, std::int64_t num_rows) {
  return tensor.empty() ? TensorView{} : tensor->slice_rows(0, num_rows);
}

ParameterSpec weight_spec(const std::string& name, const ExpertsConfig& config, std::int64_t hidden,
                          float initial_std) {
  return {.name = name,
          .global_shape = {config.num_experts, hidden},
          .keys = "experts.num_experts, experts.every, experts.first_dense, model.hidden",
          .replicas = Axis::dense_replica,
          .initial_std = initial_std};
}

}  // namespace

GateRecord::GateRecord(Device& device, const ExpertsConfig& config, std::int64_t num_tokens,
                       std::int64_t num_sequences, bool exact)
    : scores(device, Purpose::activation, DType::f32, {num_tokens, config.num_experts}),
      lse(device, Purpose::activation, DType::f32, {num_tokens}),
      indices(device, Purpose::activation, DType::i32, {num_tokens, config.top_k}),
      weights(device, Purpose::activation, DType::f32, {num_tokens, config.top_k}),
      counts(device, Purpose::activation, DType::i32, {num_sequences, config.num_experts}),
      score_sums(device, Purpose::activation, exact ? DType::f64 : DType::f32,
                 {num_sequences, config.num_experts}),
      variation(device, config, num_sequences) {
  const Shape by_expert = {num_tokens, config.num_experts};
  if (config.router.score == RouterScore::sigmoid || has_load(config.balance_loss))
    logits = Tensor(device, Purpose::activation, DType::f32, by_expert);
  if (config.router.kind == RouterKind::noisy_top_k)
    noise = Tensor(device, Purpose::activation, DType::f32, by_expert);
  if (config.may_drop())
    considered = Tensor(device, Purpose::activation, DType::i32, {num_tokens, config.top_k});
}

void GateRecord::for_each_tensor(const RecordVisitor& visit) {
  visit_tensor(visit, "scores", scores);
  visit_tensor(visit, "logits", logits);
  visit_tensor(visit, "noise", noise);
  visit_tensor(visit, "considered", considered);
  visit_tensor(visit, "lse", lse);
  visit_tensor(visit, "indices", indices);
  visit_tensor(visit, "weights", weights);
  visit_tensor(visit, "counts", counts);
  visit_tensor(visit, "score_sums", score_sums);
  variation.for_each_tensor(visit);
}

RouterScratch::RouterScratch(Device& device, const ExpertsConfig& config, std::int64_t hidden,
                             DType compute, std::int64_t num_tokens, std::int64_t num_sequences,
                             std::int64_t num_whole_tokens)
    : logits(device, Purpose::workspace, DType::f32, {num_tokens, config.num_experts}),
      dweights(device, Purpose::workspace, DType::f32, {num_tokens, config.top_k}),
      slopes(device, Purpose::workspace, DType::f32, {num_sequences, config.num_experts}),
      pool(device, Purpose::workspace, DType::i64, {config.num_experts}),
      hidden_f32(config.router.jitter > 0
                     ? TokenProjection::make_jitter_room(device, num_tokens, hidden)
                     : TokenProjection::make_room(device, num_tokens, hidden, compute)) {
  if (config.router.logit_bias) ones = RowBias::make_ones(device, num_tokens, DType::f32);
  if (num_whole_tokens == 0 || !(config.router.sees_future() || config.capacity_factor > 0)) return;
  whole_scores =
      Tensor(device, Purpose::communication, DType::f32, {num_whole_tokens, config.num_experts});
  whole_indices = Tensor(device, Purpose::workspace, DType::i32, {num_whole_tokens, config.top_k});
}

Router::Router(ParameterStore& store, const std::string& prefix, const ExpertsConfig& config,
               RouterParts parts, std::int64_t hidden, std::int64_t num_layers, float initial_std)
    : config_(config),
      num_layers_(
          config.balance_reduction == BalanceReduction::mean ? static_cast<double>(num_layers) : 1),
      context_(store.mesh().group(Axis::context)),
      all_ranks_(store.mesh().group(Axis::dense_replica)),
      parts_(std::move(parts)),
      variation_(config, store.mesh()) {
  if (config.router.has_weights())
    projection_.emplace(store, weight_spec(prefix + ".router.weight", config, hidden, initial_std));
  if (projection_ && config.router.logit_bias)
    logit_bias_.emplace(store,
                        ParameterSpec{.name = prefix + ".router.logit_bias",
                                      .global_shape = {config.num_experts},
                                      .keys = "experts.router.logit_bias, experts.num_experts",
                                      .replicas = Axis::dense_replica,
                                      .decay = false,
                                      .initial = Initial::zeros},
                        DType::f32);
  if (config.router.kind == RouterKind::noisy_top_k)
    noise_.emplace(store,
                   weight_spec(prefix + ".router.noise.weight", config, hidden, initial_std));
  if (config.bias_rate > 0)
    bias_ = &store.add({.name = prefix + ".router.bias",
                        .global_shape = {config.num_experts},
                        .keys = "experts.bias_rate, experts.num_experts",
                        .replicas = Axis::dense_replica,
                        .kind = ParameterKind::state,
                        .decay = false,
                        .initial = Initial::zeros});
}

void Router::pack_weights() {
  if (projection_) projection_->pack_weights();
  if (logit_bias_) logit_bias_->pack_weights();
  if (noise_) noise_->pack_weights();
}

Jitter Router::jitter_of(const Pass& pass, std::int64_t num_tokens) const {
  if (!pass.training || config_.router.jitter == 0) return {};
  return {.epsilon = static_cast<float>(config_.router.jitter),
          .site = token_site(parts_.keys.jitter, pass, num_tokens),
          .sequence_ids = sequence_ids_of(pass, num_tokens)};
}

void Router::project(const TensorView& x, const TensorView& logits, GateRecord& gate,
                     RouterScratch& scratch, const Pass& pass) const {
  if (!projection_) return kernels::fill_zero(logits);
  const Jitter jitter = jitter_of(pass, x.rows());
  projection_->forward(x, logits, scratch.hidden_f32, jitter);
  if (logit_bias_) logit_bias_->add_to(logits);
  if (!adds_noise(pass)) return;
  const TensorView raw = rows_of(gate.noise, x.rows());
  noise_->forward(x, raw, scratch.hidden_f32, jitter);
  kernels::add_router_noise(raw, token_site(parts_.keys.noise, pass, x.rows()),
                            sequence_ids_of(pass, x.rows()), logits);
}

TensorView Router::whole_of(const Tensor& room, const TensorView& rows, const Pass& pass) const {
  const std::int64_t num_whole = num_sequences_of(rows.rows(), pass) * pass.whole_length();
  const TensorView whole = room->slice_rows(0, num_whole);
  // Each row is one rank's and zero elsewhere, so that the sum is exact.
  kernels::fill_zero(whole);
  kernels::scatter_rows(rows, pass.token_numbers.slice_rows(0, rows.rows()), whole);
  context_.all_reduce(whole, ReduceOp::sum);
  return whole;
}

void Router::choose_in_whole_sequences(const RoutedTokens& tokens, const TensorView& scores,
                                       const TensorView& indices, RouterScratch& scratch) const {
  const Pass& pass = tokens.pass;
  const TensorView whole_scores = whole_of(scratch.whole_scores, scores, pass);
  const TensorView whole_indices = scratch.whole_indices->slice_rows(0, whole_scores.rows());
  const TensorView numbers = pass.token_numbers.slice_rows(0, scores.rows());
  Pass whole = pass;
  whole.sequence_length = pass.whole_length();
  parts_.select->choose({tokens.x, whole, tokens.bias}, whole_scores, whole_indices);
  kernels::gather_rows(whole_indices, numbers, indices);
}

void Router::select(const RoutedTokens& tokens, const TensorView& logits, GateRecord& gate,
                    RouterScratch& scratch) const {
  const std::int64_t num_tokens = logits.rows();
  const TensorView scores = rows_of(gate.scores, num_tokens);
  const TensorView indices = rows_of(gate.indices, num_tokens);
  if (replays(tokens.pass)) {
    expect(!scratch.replayed.considered.empty(), "choices for the layer that replays them");
    return kernels::copy(scratch.replayed.considered.slice_rows(0, num_tokens), indices);
  }
  TensorView judged = scores;
  if (parts_.select->looks_at_logits()) {
    judged = rows_of(scratch.logits, num_tokens);
    if (!gate.logits.empty()) kernels::copy(logits, judged);
  }
  if (parts_.select->sees_future() && tokens.pass.training && context_.size() > 1)
    choose_in_whole_sequences(tokens, judged, indices, scratch);
  else
    parts_.select->choose(tokens, judged, indices);
}

void Router::choose(const RoutedTokens& tokens, const TensorView& logits, GateRecord& gate,
                    RouterScratch& scratch) const {
  const std::int64_t num_tokens = logits.rows();
  const TensorView scores = rows_of(gate.scores, num_tokens);
  const TensorView indices = rows_of(gate.indices, num_tokens);
  select(tokens, logits, gate, scratch);
  const TensorView weights = rows_of(gate.weights, num_tokens);
  parts_.weigh->forward(scores, indices, weights);
  if (gate.considered.empty()) return;
  kernels::copy(indices, rows_of(gate.considered, num_tokens));
  if (parts_.select->gives_up(tokens.pass)) parts_.select->give_up(tokens, weights, indices);
}

void Router::forward(const TensorView& x, GateRecord& gate, RouterScratch& scratch,
                     const Pass& pass) const {
  const std::int64_t num_tokens = x.rows();
  const std::int64_t num_sequences = num_sequences_of(num_tokens, pass);
  const TensorView room = rows_of(scratch.logits, num_tokens);
  const TensorView logits = gate.logits.empty() ? room : rows_of(gate.logits, num_tokens);
  const TensorView scores = rows_of(gate.scores, num_tokens);
  project(x, logits, gate, scratch, pass);
  const RoutedTokens tokens{x, pass, bias()};
  parts_.score->forward(tokens, logits, scores, rows_of(gate.lse, num_tokens));
  choose(tokens, logits, gate, scratch);
  if (pass.training && !scratch.margins.empty())
    kernels::count_margins(scores, bias(), config_.top_k, scratch.margins);
  const TensorView shares = parts_.score->shares(scores, room);
  if (projection_ && pass.training && !scratch.entropy.empty())
    kernels::add_entropy(shares, scratch.entropy);
  const TensorView indices = rows_of(gate.indices, num_tokens);
  const TensorView counts = rows_of(gate.counts, num_sequences);
  const TensorView score_sums = rows_of(gate.score_sums, num_sequences);
  if (!pass.exact.is_on()) {
    kernels::balance_statistics(shares, indices, pass.sequence_length, counts, score_sums);
  } else {
    kernels::exact_balance_statistics(shares, indices, pass.sequence_length, pass.exact.score,
                                      counts, score_sums);
    if (context_.size() > 1) context_.all_reduce(score_sums, ReduceOp::sum);
  }
  count(counts, scratch, pass);
  if (variation_.is_on())
    variation_.forward({.weights = rows_of(gate.weights, num_tokens),
                        .indices = indices,
                        .counts = counts,
                        .choice = noisy_choice(gate, pass, num_tokens)},
                       pass, gate.variation);
  drop(scores, indices, scratch, pass);
}

kernels::NoisyChoice Router::noisy_choice(const GateRecord& gate, const Pass& pass,
                                          std::int64_t num_tokens) const {
  return {.logits = rows_of(gate.logits, num_tokens),
          .raw = rows_of(gate.noise, num_tokens),
          .site = token_site(parts_.keys.noise, pass, num_tokens),
          .sequence_ids = sequence_ids_of(pass, num_tokens),
          .top_k = config_.top_k};
}

void Router::drop(const TensorView& scores, const TensorView& indices, const RouterScratch& scratch,
                  const Pass& pass) const {
  if (replays(pass))
    kernels::copy(scratch.replayed.indices.slice_rows(0, indices.rows()), indices);
  else if (config_.capacity_factor > 0 && pass.training && context_.size() > 1)
    drop_in_whole_sequences(scores, indices, scratch, pass);
  else if (config_.capacity_factor > 0 && pass.training)
    kernels::drop_over_capacity(scores, pass.sequence_length,
                                config_.capacity_of(pass.sequence_length), config_.drop_by,
                                indices);
}

void Router::drop_in_whole_sequences(const TensorView& scores, const TensorView& indices,
                                     const RouterScratch& scratch, const Pass& pass) const {
  const std::int64_t length = pass.whole_length();
  const TensorView whole_indices = whole_of(scratch.whole_indices, indices, pass);
  TensorView whole_scores = scratch.whole_scores->slice_rows(0, whole_indices.rows());
  if (config_.drop_by == kernels::DropBy::score)
    whole_scores = whole_of(scratch.whole_scores, scores, pass);
  else
    kernels::fill_zero(whole_scores);  // which then decide nothing
  kernels::drop_over_capacity(whole_scores, length, config_.capacity_of(length), config_.drop_by,
                              whole_indices);
  kernels::gather_rows(whole_indices, pass.token_numbers.slice_rows(0, indices.rows()), indices);
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
  if (!projection_) return;
  const std::int64_t num_sequences = num_sequences_of(num_tokens, pass);
  // Another balance loss leaves the z-loss alone here.
  const std::int64_t num_counted = variation_.is_on() ? 0 : num_sequences;
  const TensorView counts = gate.counts->slice_rows(0, num_counted);
  const TensorView score_sums = gate.score_sums->slice_rows(0, num_counted);
  const TensorView lse = gate.lse->slice_rows(0, num_tokens);
  const Pool pool = pool_of(pass);
  if (pass.exact.is_on())
    kernels::add_exact_auxiliary_losses(counts, score_sums, lse,
                                        {.top_k = config_.top_k,
                                         .sequence_length = pool.num_tokens,
                                         .balance = pass.exact.balance,
                                         .z = pass.exact.z,
                                         .counts_balance = context_.rank() == 0},
                                        losses);
  else
    kernels::add_auxiliary_losses(counts, score_sums, lse,
                                  {.top_k = config_.top_k,
                                   .sequence_length = pool.num_tokens,
                                   .num_sequences = pool.times,
                                   .num_tokens = pass.num_global_tokens},
                                  losses);
  if (variation_.is_on()) variation_.add(gate.variation, num_sequences, pass, losses);
}

void Router::backward_to_logits(const TensorView& x, const GateRecord& gate, RouterScratch& scratch,
                                const TensorView& slopes, const TensorView& dlogits,
                                const Pass& pass) const {
  const std::int64_t num_tokens = dlogits.rows(), num_sequences = slopes.rows();
  const double z_slope = config_.z_weight / (pass.num_global_tokens * num_layers_);
  const Pool pool = pool_of(pass);
  const double weight = config_.balance_weight / (pool.times * num_layers_);
  const TensorView scores = rows_of(gate.scores, num_tokens);
  const TensorView considered =
      rows_of(gate.considered.empty() ? gate.indices : gate.considered, num_tokens);
  const TensorView dchosen = rows_of(scratch.dweights, num_tokens);
  if (variation_.is_on()) {
    variation_.add_weight_gradient(gate.variation, weight, considered, slopes, dchosen);
    kernels::fill_zero(slopes);
  } else {
    kernels::balance_slopes(gate.counts->slice_rows(0, num_sequences), config_.top_k,
                            pool.num_tokens, weight, slopes);
  }
  parts_.weigh->backward(dchosen, scores, considered, dchosen);
  parts_.score->backward({x, pass, bias()},
                         {.dchosen = dchosen,
                          .indices = considered,
                          .slopes = slopes,
                          .z_slope = static_cast<float>(z_slope)},
                         rows_of(gate.logits, num_tokens), scores, rows_of(gate.lse, num_tokens),
                         dlogits);
  if (variation_.is_on())
    variation_.add_logit_gradient(gate.variation, weight, noisy_choice(gate, pass, num_tokens),
                                  slopes, dlogits);
}

void Router::backward(const TensorView& x, const GateRecord& gate, RouterScratch& scratch,
                      const TensorView& dx, const Pass& pass) const {
  if (!projection_) return;
  const std::int64_t num_tokens = x.rows();
  const TensorView dlogits = scratch.logits->slice_rows(0, num_tokens);
  const TensorView slopes = scratch.slopes->slice_rows(0, num_sequences_of(num_tokens, pass));
  backward_to_logits(x, gate, scratch, slopes, dlogits, pass);
  const Jitter jitter = jitter_of(pass, num_tokens);
  if (logit_bias_) logit_bias_->backward(dlogits, scratch.ones, pass);
  projection_->backward(dlogits, x, dx, scratch.hidden_f32, pass, jitter);
  if (!noise_) return;
  const kernels::NoisyChoice choice = noisy_choice(gate, pass, num_tokens);
  kernels::router_noise_backward(dlogits, choice.raw, choice.site, choice.sequence_ids, dlogits);
  if (variation_.is_on())
    variation_.add_noise_gradient(gate.variation,
                                  config_.balance_weight / (pool_of(pass).times * num_layers_),
                                  choice, slopes, dlogits);
  noise_->backward(dlogits, x, dx, scratch.hidden_f32, pass, jitter);
}

void Router::move_bias(const TensorView& counts, const TensorView& decision) const {
  if (bias_ == nullptr) return;
  if (config_.has_quantiles())
    return kernels::move_bias_to_quantiles(counts, config_.top_k, decision, config_.bias_rate,
                                           bias());
  kernels::move_selection_bias(counts, decision, static_cast<float>(config_.bias_rate), bias());
}

}  // namespace switchyard
