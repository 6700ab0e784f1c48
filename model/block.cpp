#include "model/block.hpp"

#include "kernels/elementwise.hpp"
#include "kernels/rms_norm.hpp"
#include "model/parameter_spec.hpp"
#include "model/residual_dropout.hpp"

namespace switchyard {

namespace {

std::string layer_name(std::int64_t index) {
  return "layers." + std::to_string(index);
}

bool any_layer(const ModelConfig& model, const ExpertsConfig& experts, bool with_experts) {
  for (std::int64_t layer = 0; layer < model.num_layers; ++layer)
    if (experts.layer_has_experts(layer) == with_experts) return true;
  return false;
}

}  // namespace

Block::Scratch::Scratch(Device& device, const ModelConfig& model, const ExpertsConfig& experts,
                        DType compute, std::int64_t num_sequences, std::int64_t sequence_length,
                        int expert_ranks, RowCapacity& capacity)
    : attention(device, model, compute, num_sequences, sequence_length),
      delta(device, Purpose::workspace, compute, {num_sequences * sequence_length, model.hidden}),
      d_normed(device, Purpose::workspace, compute,
               {num_sequences * sequence_length, model.hidden}),
      norm_workspace(device, Purpose::workspace, DType::u8,
                     {kernels::rms_norm_workspace_bytes(model.hidden)}) {
  const std::int64_t num_tokens = num_sequences * sequence_length;
  if (any_layer(model, experts, false)) dense.emplace(device, model, compute, num_tokens);
  if (any_layer(model, experts, true))
    moe.emplace(device, experts, model.hidden, compute, num_tokens, num_sequences, expert_ranks,
                capacity);
}

Block::ExtendState::ExtendState(Device& device, const ModelConfig& model,
                                const ExpertsConfig& experts, DType compute,
                                std::int64_t num_tokens, std::int64_t max_length)
    : norm(make_norm_saved(device, compute, num_tokens, model.hidden)),
      delta(device, Purpose::workspace, compute, {num_tokens, model.hidden}),
      attention(device, model, compute, num_tokens, max_length) {
  if (any_layer(model, experts, false)) dense_scratch.emplace(device, model, compute, num_tokens);
  if (any_layer(model, experts, true))
    moe_scratch.emplace(device, experts, model.hidden, compute, num_tokens, 1, 1, capacity);
}

Block::Block(ParameterStore& store, std::int64_t index, const ModelConfig& model,
             const ExpertsConfig& experts, DType compute, std::uint64_t seed,
             std::int64_t num_moe_layers)
    : device_(store.device()),
      hidden_(model.hidden),
      compute_(compute),
      epsilon_(static_cast<float>(model.norm_epsilon)),
      residual_dropout_(model.residual_dropout),
      attention_dropout_key_(random_key(seed, "dropout " + layer_name(index) + ".attention")),
      feed_forward_dropout_key_(random_key(seed, "dropout " + layer_name(index) + ".feed_forward")),
      attention_norm_(
          store.add(norm_spec(layer_name(index) + ".attention_norm.weight", model.hidden))),
      attention_(store, layer_name(index) + ".attention", model, compute),
      feed_forward_norm_(
          store.add(norm_spec(layer_name(index) + ".feed_forward_norm.weight", model.hidden))) {
  const std::string name = layer_name(index);
  if (experts.layer_has_experts(index))
    moe_.emplace(store, name, experts, model.hidden, compute, num_moe_layers,
                 random_key(seed, "dropout " + name + ".experts"),
                 static_cast<float>(residual_std(model)), static_cast<float>(model.initial_std));
  else
    dense_.emplace(store, name + ".feed_forward", model, compute);
}

Block::NormSaved Block::make_norm_saved(Device& device, DType compute, std::int64_t num_tokens,
                                        std::int64_t hidden) {
  NormSaved saved;
  saved.stream = Tensor(device, Purpose::activation, compute, {num_tokens, hidden});
  saved.rstd = Tensor(device, Purpose::activation, DType::f32, {num_tokens});
  saved.normed = Tensor(device, Purpose::activation, compute, {num_tokens, hidden});
  return saved;
}

Block::Saved Block::make_saved(std::int64_t num_tokens, std::int64_t num_sequences) const {
  Saved saved;
  saved.attention_norm = make_norm_saved(device_, compute_, num_tokens, hidden_);
  saved.attention = attention_.make_saved(num_tokens);
  saved.feed_forward_norm = make_norm_saved(device_, compute_, num_tokens, hidden_);
  if (moe_)
    saved.moe.emplace(moe_->make_saved(num_tokens, num_sequences));
  else
    saved.dense.emplace(dense_->make_saved(num_tokens));
  return saved;
}

void Block::register_buffers(Saved& saved, RowCapacity& capacity) {
  if (saved.moe) MoeLayer::register_buffers(*saved.moe, capacity);
}

void Block::add_extend_buffers(ExtendState& state, std::int64_t num_tokens) const {
  if (dense_ && !state.dense) state.dense.emplace(dense_->make_saved(num_tokens));
  if (moe_ && !state.moe) {
    state.moe.emplace(moe_->make_saved(num_tokens, 1));
    MoeLayer::register_buffers(*state.moe, state.capacity);
  }
}

void Block::pack_weights() {
  attention_.pack_weights();
  if (moe_)
    moe_->pack_weights();
  else
    dense_->pack_weights();
}

void Block::add_and_norm(const TensorView& stream, const TensorView& delta, const Parameter& weight,
                         NormSaved& saved) const {
  const Profile::Scope scope(device_.profile(), Part::embedding);
  if (delta.empty())
    kernels::rms_norm_forward(stream, weight.value(), epsilon_, saved.normed, saved.rstd);
  else
    kernels::add_rms_norm_forward(stream, delta, weight.value(), epsilon_, saved.stream,
                                  saved.normed, saved.rstd);
}

void Block::forward(const TensorView& stream, const TensorView& delta, Saved& saved,
                    Scratch& scratch, RowCapacity& capacity, const Pass& pass) const {
  Profile& profile = device_.profile();
  add_and_norm(stream, delta, attention_norm_, saved.attention_norm);
  {
    const Profile::Scope scope(profile, Part::attention);
    attention_.forward(saved.attention_norm.normed, scratch.delta, saved.attention,
                       scratch.attention, pass);
  }
  {
    const Profile::Scope scope(profile, Part::embedding);
    apply_dropout(scratch.delta, residual_dropout_, attention_dropout_key_, pass);
  }
  pass.poll();
  add_and_norm(saved.attention_norm.stream, scratch.delta, feed_forward_norm_,
               saved.feed_forward_norm);
  const TensorView& x = saved.feed_forward_norm.normed;
  if (moe_) {
    moe_->forward(x, scratch.delta, *saved.moe, *scratch.moe, capacity, pass);
  } else {
    const Profile::Scope scope(profile, Part::experts);
    dense_->forward(x, scratch.delta, *saved.dense, *scratch.dense, pass);
  }
  const Profile::Scope scope(profile, Part::embedding);
  apply_dropout(scratch.delta, residual_dropout_, feed_forward_dropout_key_, pass);
  pass.poll();
}

void Block::norm_backward(const Parameter& weight, const NormSaved& saved,
                          const TensorView& d_stream, Scratch& scratch, const Pass& pass) const {
  const Profile::Scope scope(device_.profile(), Part::embedding);
  kernels::rms_norm_backward(scratch.d_normed, saved.stream, weight.value(), saved.rstd, d_stream,
                             d_stream, weight.gradient(), scratch.norm_workspace);
  pass.gradient_ready(weight);
}

void Block::feed_forward_backward(const TensorView& dy, Saved& saved, Scratch& scratch,
                                  const Pass& pass) const {
  const TensorView& x = saved.feed_forward_norm.normed;
  if (moe_) {
    moe_->backward(dy, x, scratch.d_normed, *saved.moe, *scratch.moe, pass);
    return;
  }
  const Profile::Scope scope(device_.profile(), Part::experts);
  dense_->backward(dy, x, scratch.d_normed, *saved.dense, *scratch.dense, pass);
}

void Block::backward(const TensorView& d_stream, Saved& saved, Scratch& scratch,
                     const Pass& pass) const {
  // The gradient of a term is that of the stream. It is copied where it will be changed: by
  // dropout, or by the layer with experts.
  const auto gradient_of_term = [&](RandomKey key, bool needs_copy) -> TensorView {
    if (!needs_copy && !drops(residual_dropout_, pass)) return d_stream;
    const Profile::Scope scope(device_.profile(), Part::embedding);
    kernels::copy(d_stream, scratch.delta);
    apply_dropout(scratch.delta, residual_dropout_, key, pass);
    return scratch.delta;
  };

  feed_forward_backward(gradient_of_term(feed_forward_dropout_key_, has_experts()), saved, scratch,
                        pass);
  norm_backward(feed_forward_norm_, saved.feed_forward_norm, d_stream, scratch, pass);
  pass.poll();
  const TensorView dy = gradient_of_term(attention_dropout_key_, false);
  {
    const Profile::Scope scope(device_.profile(), Part::attention);
    attention_.backward(dy, saved.attention_norm.normed, scratch.d_normed, saved.attention,
                        scratch.attention, pass);
  }
  norm_backward(attention_norm_, saved.attention_norm, d_stream, scratch, pass);
  pass.poll();
}

void Block::extend(ExtendState& state, std::int64_t num_cached, AttentionLayer::Cache& cache,
                   const kernels::RopeTable& rope, bool first_block, const Pass& pass) const {
  const TensorView nothing;
  add_and_norm(state.norm.stream, first_block ? nothing : state.delta.view(), attention_norm_,
               state.norm);
  attention_.extend(state.norm.normed, state.delta, num_cached, cache, rope, state.attention, pass);
  add_and_norm(state.norm.stream, state.delta, feed_forward_norm_, state.norm);
  if (moe_)
    moe_->forward(state.norm.normed, state.delta, *state.moe, *state.moe_scratch, state.capacity,
                  pass);
  else
    dense_->forward(state.norm.normed, state.delta, *state.dense, *state.dense_scratch, pass);
}

}  // namespace switchyard
