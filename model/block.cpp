#include "model/block.hpp"

#include "experts/dispatch/row_units.hpp"
#include "kernels/rows/elementwise.hpp"
#include "kernels/rows/rms_norm.hpp"
#include "model/mixers/make_mixer.hpp"
#include "model/parameter_spec.hpp"
#include "model/residual_dropout.hpp"
#include "model/rope_spec.hpp"

namespace switchyard {

namespace {

std::string layer_name(std::int64_t index) {
  return "layers." + std::to_string(index);
}

// With experts, or dense.
bool any_layer(const ModelConfig& model, const ExpertsConfig& experts, bool with_experts) {
  if (!with_experts && model.feed_forward == FeedForwardKind::none) return false;
  for (std::int64_t layer = 0; layer < model.num_layers; ++layer)
    if (experts.layer_has_experts(layer) == with_experts) return true;
  return false;
}

}  // namespace

Block::Scratch::Scratch(Device& device, const Mesh& mesh, const Placement& placement,
                        const ModelConfig& model, const ExpertsConfig& experts, DType compute,
                        std::int64_t num_sequences, const SequenceSplit& split,
                        RowCapacity& row_capacity, std::int64_t unit_rows)
    : capacity(row_capacity) {
  if (model.turns_positions())
    rope = kernels::RopeTable(device, split.length(), model.rope_dim(), rope_spec(model));
  const std::int64_t num_tokens = num_sequences * split.num_local(mesh.index(Axis::context));
  delta = Tensor(device, Purpose::workspace, compute, {num_tokens, model.hidden});
  d_normed = Tensor(device, Purpose::workspace, compute, {num_tokens, model.hidden});
  norm_workspace = Tensor(device, Purpose::workspace, DType::u8,
                          {kernels::rms_norm_workspace_bytes(device, model.hidden)});
  if (any_layer(model, experts, false))
    dense.emplace(device, model, compute, num_tokens, unit_rows);
  if (any_layer(model, experts, true))
    moe.emplace(device, experts, model.hidden, compute, num_tokens, num_sequences, placement,
                row_capacity, sharing_of(mesh),
                split.num_ranks() > 1 ? num_sequences * split.length() : 0,
                row_units_of(mesh, split, num_sequences, unit_rows));
}

Block::ExtendState::ExtendState(Device& device, const Placement& placement,
                                const ModelConfig& model, const ExpertsConfig& experts,
                                DType compute, std::int64_t num_tokens)
    : stream(device, Purpose::activation, compute, {num_tokens, model.hidden}),
      norm(make_normed(device, compute, num_tokens, model.hidden)),
      delta(device, Purpose::workspace, compute, {num_tokens, model.hidden}) {
  if (any_layer(model, experts, false)) dense_scratch.emplace(device, model, compute, num_tokens);
  if (any_layer(model, experts, true))
    moe_scratch.emplace(device, experts, model.hidden, compute, num_tokens, 1, placement, capacity);
}

Block::Block(ParameterStore& store, std::int64_t index, const ModelConfig& model,
             const ExpertsConfig& experts, const Placement& placement, DType compute,
             std::uint64_t seed, std::int64_t num_moe_layers)
    : device_(store.device()),
      index_(index),
      hidden_(model.hidden),
      compute_(compute),
      epsilon_(static_cast<float>(model.norm_epsilon)),
      residual_dropout_(model.residual_dropout),
      mixer_dropout_key_(random_key(seed, "dropout " + layer_name(index) + ".attention")),
      feed_forward_dropout_key_(random_key(seed, "dropout " + layer_name(index) + ".feed_forward")),
      mixer_norm_(store.add(norm_spec(layer_name(index) + ".attention_norm.weight", model.hidden))),
      mixer_(make_mixer(store, layer_name(index), model, index, compute)),
      feed_forward_norm_(nullptr) {
  const std::string name = layer_name(index);
  const bool has_experts = experts.layer_has_experts(index);
  if (!has_experts && model.feed_forward == FeedForwardKind::none) return;
  feed_forward_norm_ = &store.add(norm_spec(name + ".feed_forward_norm.weight", model.hidden));
  if (has_experts)
    moe_.emplace(store, name, experts, make_router_parts(experts, router_keys(seed, name)),
                 model.hidden, compute, placement, num_moe_layers,
                 random_key(seed, "dropout " + name + ".experts"),
                 static_cast<float>(residual_std(model)), static_cast<float>(model.initial_std));
  else
    dense_.emplace(store, name + ".feed_forward", model, compute);
}

Block::Normed Block::make_normed(Device& device, DType compute, std::int64_t num_tokens,
                                 std::int64_t hidden) {
  Normed normed;
  normed.rstd = Tensor(device, Purpose::activation, DType::f32, {num_tokens});
  normed.normed = Tensor(device, Purpose::activation, compute, {num_tokens, hidden});
  return normed;
}

Block::Saved Block::make_saved(std::int64_t num_tokens, std::int64_t num_sequences) const {
  Saved saved;
  saved.stream = Tensor(device_, Purpose::activation, compute_, {num_tokens, hidden_});
  extend_saved(saved, num_tokens, num_sequences);
  return saved;
}

Block::Derived Block::make_derived(std::int64_t num_tokens, std::int64_t num_sequences,
                                   bool keep_gate_up) const {
  Derived derived;
  derived.mixer_norm = make_normed(device_, compute_, num_tokens, hidden_);
  extend_derived(derived, num_tokens, num_sequences, keep_gate_up);
  return derived;
}

void Block::extend_saved(Saved& saved, std::int64_t num_tokens, std::int64_t num_sequences) const {
  if (std::unique_ptr<MixerRecord>& record = saved.mixers[mixer_->kind()]; !record)
    record = mixer_->make_saved(num_tokens, num_sequences);
  if (moe_ && !saved.moe) saved.moe.emplace(moe_->make_saved(num_tokens, num_sequences));
}

void Block::extend_derived(Derived& derived, std::int64_t num_tokens, std::int64_t num_sequences,
                           bool keep_gate_up) const {
  if (std::unique_ptr<MixerRecord>& record = derived.mixers[mixer_->kind()]; !record)
    record = mixer_->make_derived(num_tokens, num_sequences);
  if (has_feed_forward() && derived.stream.empty()) {
    derived.stream = Tensor(device_, Purpose::activation, compute_, {num_tokens, hidden_});
    derived.feed_forward_norm = make_normed(device_, compute_, num_tokens, hidden_);
  }
  if (moe_ && !derived.moe)
    derived.moe.emplace(moe_->make_derived(num_tokens, num_sequences, keep_gate_up));
  if (dense_ && !derived.dense)
    derived.dense.emplace(dense_->make_derived(num_tokens, keep_gate_up));
}

void Block::Normed::for_each_tensor(const RecordVisitor& visit) {
  visit_tensor(visit, "rstd", rstd);
  visit_tensor(visit, "normed", normed);
}

void Block::visit_mixers(const ByKind<MixerRecord>& mixers, const RecordVisitor& visit,
                         const Block* of) {
  for (const auto& [kind, record] : mixers)
    if (of == nullptr || of->mixer_->kind() == kind)
      record->for_each_tensor(with_prefix(kind, visit));
}

void Block::Saved::for_each_tensor(const RecordVisitor& visit, const Block* of) {
  visit_tensor(visit, "stream", stream);
  visit_mixers(mixers, visit, of);
  if (moe && (of == nullptr || of->has_experts())) moe->for_each_tensor(with_prefix("moe", visit));
}

void Block::Derived::for_each_tensor(std::int64_t num_rows, const RecordVisitor& visit,
                                     const Block* of) {
  mixer_norm.for_each_tensor(with_prefix("mixer_norm", visit));
  visit_mixers(mixers, visit, of);
  if (!stream.empty() && (of == nullptr || of->has_feed_forward())) {
    visit_tensor(visit, "stream_after_mixer", stream);
    feed_forward_norm.for_each_tensor(with_prefix("feed_forward_norm", visit));
  }
  if (dense && (of == nullptr || of->dense_.has_value()))
    dense->for_each_tensor(with_prefix("feed_forward", visit));
  if (moe && (of == nullptr || of->has_experts()))
    moe->for_each_tensor(num_rows, with_prefix("moe", visit));
}

void Block::for_each_tensor(Saved& saved, Derived& derived, const RecordVisitor& visit) const {
  saved.for_each_tensor(visit, this);
  derived.for_each_tensor(moe_ ? saved.moe->route.kept_rows() : 0, visit, this);
}

void Block::add_scratch(Scratch& scratch, std::int64_t num_sequences,
                        const SequenceSplit& split) const {
  if (std::unique_ptr<MixerScratch>& mixer = scratch.mixers[mixer_->kind()]; !mixer)
    mixer = mixer_->make_scratch(num_sequences, split);
}

void Block::add_extend_buffers(ExtendState& state, std::int64_t num_tokens,
                               std::int64_t max_length) const {
  if (std::unique_ptr<MixerScratch>& mixer = state.mixers[mixer_->kind()]; !mixer)
    mixer = mixer_->make_extend_scratch(num_tokens, max_length);
  if (dense_ && !state.dense) state.dense.emplace(dense_->make_derived(num_tokens, false));
  if (moe_ && !state.moe) {
    state.moe.emplace(moe_->make_saved(num_tokens, 1));
    state.moe_derived.emplace(moe_->make_derived(num_tokens, 1, false));
    state.moe->for_each_tensor(state.capacity.adder());
    state.moe_derived->for_each_tensor(0, state.capacity.adder());
  }
}

void Block::pack_weights() {
  mixer_->pack_weights();
  if (moe_) moe_->pack_weights();
  if (dense_) dense_->pack_weights();
}

void Block::add_and_norm(const TensorView& stream, const TensorView& delta, const TensorView& sum,
                         const Parameter& weight, Normed& normed) const {
  const Profile::Scope scope(device_.profile(), Part::embedding);
  if (delta.empty())
    kernels::rms_norm_forward(stream, weight.value(), epsilon_, normed.normed, normed.rstd);
  else
    kernels::add_rms_norm_forward(stream, delta, weight.value(), epsilon_, sum, normed.normed,
                                  normed.rstd);
}

void Block::drop_of_mixer(Scratch& scratch, const Pass& pass) const {
  const Profile::Scope scope(device_.profile(), Part::embedding);
  apply_dropout(scratch.delta, residual_dropout_, mixer_dropout_key_, pass);
  pass.poll();
}

void Block::finish_mixer(const Saved& saved, Derived& derived, Scratch& scratch,
                         const Pass& pass) const {
  drop_of_mixer(scratch, pass);
  add_and_norm(saved.stream, scratch.delta, derived.stream, *feed_forward_norm_,
               derived.feed_forward_norm);
}

void Block::forward(const TensorView& stream, const TensorView& delta, Saved& saved,
                    Derived& derived, Scratch& scratch, const Pass& pass) const {
  Profile& profile = device_.profile();
  add_and_norm(stream, delta, saved.stream, mixer_norm_, derived.mixer_norm);
  {
    const Profile::Scope scope(profile, Part::attention);
    mixer_->forward(derived.mixer_norm.normed, scratch.delta, own(saved.mixers),
                    own(derived.mixers), context_of(scratch, pass));
  }
  if (!has_feed_forward()) return drop_of_mixer(scratch, pass);
  finish_mixer(saved, derived, scratch, pass);
  const TensorView& x = derived.feed_forward_norm.normed;
  if (moe_) {
    // Padding stands behind all else, and goes past the experts.
    const std::int64_t num_tokens = x.rows() - pass.num_padding * pass.sequence_length;
    moe_->forward(x.slice_rows(0, num_tokens), scratch.delta->slice_rows(0, num_tokens), *saved.moe,
                  *derived.moe, *scratch.moe, scratch.capacity, pass);
    kernels::fill_zero(scratch.delta->slice_rows(num_tokens, x.rows()));
  } else {
    const Profile::Scope scope(profile, Part::experts);
    dense_->forward(x, scratch.delta, *derived.dense, *scratch.dense, pass);
  }
  const Profile::Scope scope(profile, Part::embedding);
  apply_dropout(scratch.delta, residual_dropout_, feed_forward_dropout_key_, pass);
  pass.poll();
}

void Block::rebuild(const Saved& saved, Derived& derived, Scratch& scratch,
                    const Pass& pass) const {
  add_and_norm(saved.stream, {}, {}, mixer_norm_, derived.mixer_norm);
  {
    const Profile::Scope scope(device_.profile(), Part::attention);
    mixer_->rebuild(derived.mixer_norm.normed, scratch.delta, own(saved.mixers),
                    own(derived.mixers), context_of(scratch, pass));
  }
  if (!has_feed_forward()) return pass.poll();
  finish_mixer(saved, derived, scratch, pass);
  if (moe_)
    moe_->rebuild(derived.feed_forward_norm.normed, *saved.moe, *derived.moe, *scratch.moe, pass);
  pass.poll();
}

void Block::norm_backward(const Parameter& weight, const TensorView& stream, const Normed& normed,
                          const TensorView& d_stream, Scratch& scratch, const Pass& pass) const {
  const Profile::Scope scope(device_.profile(), Part::embedding);
  kernels::rms_norm_backward(scratch.d_normed, stream, weight.value(), normed.rstd, d_stream,
                             d_stream, weight.gradient_sum(), scratch.norm_workspace);
  pass.gradient_ready(weight);
}

void Block::feed_forward_backward(const TensorView& dy, const Saved& saved, const Derived& derived,
                                  Scratch& scratch, const Pass& pass) const {
  const TensorView& x = derived.feed_forward_norm.normed;
  if (moe_) {
    moe_->backward(dy, x, scratch.d_normed, *saved.moe, *derived.moe, *scratch.moe, pass);
    return;
  }
  const Profile::Scope scope(device_.profile(), Part::experts);
  dense_->backward(dy, x, scratch.d_normed, *derived.dense, *scratch.dense, pass);
}

void Block::backward(const TensorView& d_stream, const Saved& saved, const Derived& derived,
                     Scratch& scratch, const Pass& pass) const {
  // The gradient of a term is that of the stream. It is copied where it will be changed: by
  // dropout, or by the layer with experts.
  const auto gradient_of_term = [&](RandomKey key, bool needs_copy) -> TensorView {
    if (!needs_copy && !drops(residual_dropout_, pass)) return d_stream;
    const Profile::Scope scope(device_.profile(), Part::embedding);
    kernels::copy(d_stream, scratch.delta);
    apply_dropout(scratch.delta, residual_dropout_, key, pass);
    return scratch.delta;
  };

  if (has_feed_forward()) {
    feed_forward_backward(gradient_of_term(feed_forward_dropout_key_, has_experts()), saved,
                          derived, scratch, pass);
    norm_backward(*feed_forward_norm_, derived.stream, derived.feed_forward_norm, d_stream, scratch,
                  pass);
    pass.poll();
  }
  const TensorView dy = gradient_of_term(mixer_dropout_key_, false);
  {
    const Profile::Scope scope(device_.profile(), Part::attention);
    mixer_->backward(dy, derived.mixer_norm.normed, scratch.d_normed, own(saved.mixers),
                     own(derived.mixers), context_of(scratch, pass));
  }
  norm_backward(mixer_norm_, saved.stream, derived.mixer_norm, d_stream, scratch, pass);
  pass.poll();
}

void Block::extend(ExtendState& state, std::int64_t num_cached, MixerCache& cache,
                   const kernels::RopeTable& rope, bool first_block, const Pass& pass) const {
  const TensorView nothing;
  add_and_norm(state.stream, first_block ? nothing : state.delta.view(), state.stream, mixer_norm_,
               state.norm);
  mixer_->extend(state.norm.normed, state.delta, num_cached, cache,
                 {pass, index_, rope, *state.mixers.at(mixer_->kind())});
  if (!has_feed_forward()) return;
  add_and_norm(state.stream, state.delta, state.stream, *feed_forward_norm_, state.norm);
  if (moe_)
    moe_->forward(state.norm.normed, state.delta, *state.moe, *state.moe_derived,
                  *state.moe_scratch, state.capacity, pass);
  else
    dense_->forward(state.norm.normed, state.delta, *state.dense, *state.dense_scratch, pass);
}

}  // namespace switchyard
