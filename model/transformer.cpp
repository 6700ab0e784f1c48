#include "model/transformer.hpp"

#include "kernels/rows/elementwise.hpp"
#include "kernels/rows/embedding.hpp"
#include "kernels/rows/rms_norm.hpp"
#include "kernels/sums/sums.hpp"
#include "model/parameter_spec.hpp"
#include "model/residual_dropout.hpp"
#include "model/rope_spec.hpp"
#include "tensor/error.hpp"

namespace switchyard {

namespace {

Head::Targets targets_of(const TokenBatch& batch) {
  return {batch.targets.flat(), batch.weights.empty() ? TensorView{} : batch.weights.flat()};
}

// What an observer may see of a layer, now that its forward pass is done.
void show(ActivationObserver& observer, std::size_t layer, LayerRecords& records) {
  records.for_each_tensor(layer, [&](const RecordTensor& part) {
    for (const ObservedTensor which :
         {ObservedTensor::hidden, ObservedTensor::attention_lse, ObservedTensor::gate_probs})
      if (is_named(which, part.name))
        observer.observe(static_cast<std::int64_t>(layer), which, *part.tensor);
  });
}

}  // namespace

Transformer::Transformer(ParameterStore& store, const std::vector<Placement>& placements,
                         const ModelConfig& model, const ExpertsConfig& experts, DType compute,
                         std::uint64_t seed, std::int64_t vocab_size_used)
    : store_(store),
      placements_(placements),
      model_(model),
      experts_(experts),
      compute_(compute),
      vocab_size_used_(vocab_size_used),
      embedding_dropout_key_(random_key(seed, "dropout embedding")) {
  expect(compute == DType::f32 || compute == DType::bf16, "a compute type of f32 or bf16");
  layers_.embedding = store.begin_layer();
  embedding_ =
      &store.add(weight_spec("embedding.weight", {model.vocab_size, model.hidden},
                             "model.vocab_size, model.hidden", model.effective_embedding_std()));
  positions_.emplace(store, model);
  expect(placements.size() == 1 || std::ssize(placements) == num_moe_layers(),
         "a placement for each layer with experts, or one for all");
  auto placement = placements.begin();
  for (std::int64_t layer = 0; layer < model.num_layers; ++layer) {
    layers_.blocks.push_back(store.begin_layer());
    blocks_.push_back(std::make_unique<Block>(store, layer, model, experts, *placement, compute,
                                              seed, num_moe_layers()));
    if (blocks_.back()->has_experts() && placement + 1 != placements.end()) ++placement;
  }
  layers_.output = store.begin_layer();
  final_norm_ = &store.add(norm_spec("final_norm.weight", model.hidden));
  head_ = std::make_unique<Head>(store, model, compute, model.tie_embeddings ? embedding_ : nullptr,
                                 vocab_size_used);
}

Transformer::~Transformer() = default;

std::int64_t Transformer::num_moe_layers() const {
  std::int64_t count = 0;
  for (std::int64_t layer = 0; layer < model_.num_layers; ++layer)
    count += experts_.layer_has_experts(layer) ? 1 : 0;
  return count;
}

std::int64_t Transformer::vocab_size() const {
  return model_.vocab_size;
}

void Transformer::pack_weights() {
  for (const auto& block : blocks_) block->pack_weights();
  head_->pack_weights();
}

void Transformer::train(const TokenBatch& batch, Activations& activations, const Pass& pass,
                        const TensorView& losses) const {
  forward(batch, activations, pass, true);
  add_auxiliary_losses(activations, pass, losses);
  {
    const Profile::Scope scope(device().profile(), Part::head);
    Activations::Output& output = activations.output();
    head_->train(output.norm.normed, targets_of(batch), activations.scratch().d_normed, output.head,
                 pass, losses.slice_rows(0, 1));
  }
  backward(batch, activations, pass);
}

void Transformer::evaluate(const TokenBatch& batch, Activations& activations, const Pass& pass,
                           const TensorView& losses, const TensorView& token_losses,
                           const Head::SeeLogits& see) const {
  forward(batch, activations, pass, false);
  add_auxiliary_losses(activations, pass, losses);
  const Profile::Scope scope(device().profile(), Part::head);
  Activations::Output& output = activations.output();
  head_->evaluate(output.norm.normed, targets_of(batch), token_losses, output.head, pass,
                  losses.slice_rows(0, 1), see);
}

void Transformer::logits(const TokenBatch& batch, Activations& activations, const Pass& pass,
                         const TensorView& out) const {
  forward(batch, activations, pass, false);
  const Profile::Scope scope(device().profile(), Part::head);
  const TensorView& x = activations.output().norm.normed;
  head_->logits(x, out.reshape({x.rows(), vocab_size()}));
}

void Transformer::forward(const TokenBatch& batch, Activations& activations, const Pass& pass,
                          bool keeps) const {
  LayerRecords& records = activations.records();
  Block::Scratch& scratch = activations.scratch();
  Activations::Output& output = activations.output();
  expect(batch.num_sequences == activations.num_sequences() &&
             batch.sequence_length == activations.sequence_length(),
         "a batch of the size that the activations were made for");
  expect(pass.sequence_length == batch.sequence_length &&
             pass.sequence_ids.numel() == batch.num_sequences &&
             pass.positions.numel() == batch.tokens.numel(),
         "a pass over the tokens of the batch");
  ActivationObserver* observer = keeps ? activations.observer() : nullptr;
  if (observer != nullptr) observer->begin(batch.sequence_ids);
  TensorView stream = output.stream;  // of a model without blocks
  if (!blocks_.empty()) stream = records.begin_forward(0, pass).saved.stream;
  {
    const Profile::Scope scope(device().profile(), Part::embedding);
    pass.needs(layers_.embedding);
    kernels::embedding_forward(batch.tokens.flat(), embedding_->value(), stream);
    positions_->forward(stream, activations.positions(), pass);
    apply_dropout(stream, model_.embedding_dropout, embedding_dropout_key_, pass);
  }
  if (scratch.moe) kernels::fill_zero(scratch.moe->losses);
  TensorView delta;                 // what the block before adds to the stream
  std::optional<std::size_t> open;  // a layer whose saved record the stream still lies in
  const auto end_open = [&] {
    if (open) records.end_forward(*open, keeps);
    open.reset();
  };
  for (std::size_t layer = 0; layer < blocks_.size(); ++layer) {
    const Profile::LayerScope here(device().profile(), static_cast<std::int64_t>(layer), false);
    const auto [saved, derived] = records.begin_forward(layer, pass);
    pass.needs(layers_.blocks[layer]);
    const bool has_experts = blocks_[layer]->has_experts();
    if (has_experts) activations.begin_count(layer);
    blocks_[layer]->forward(stream, delta, saved, derived, scratch, pass);
    end_open();
    stream = blocks_[layer]->stream_of(saved, derived);
    delta = scratch.delta;
    if (observer != nullptr) show(*observer, layer, records);
    if (has_experts && keeps && activations.routing_observer() != nullptr)
      activations.routing_observer()->observe(activations.moe_layer(layer), saved.moe->gate,
                                              batch.tokens.numel(), pass);
    open = layer;
    if (blocks_[layer]->has_feed_forward()) end_open();
    if (has_experts) activations.add_load(layer);
  }
  pass.needs(layers_.output);
  const Profile::Scope scope(device().profile(), Part::embedding);
  normalize(stream, delta, output.stream, output.norm);
  end_open();
}

void Transformer::normalize(const TensorView& stream, const TensorView& delta,
                            const TensorView& sum, Block::Normed& normed) const {
  const auto epsilon = static_cast<float>(model_.norm_epsilon);
  if (delta.empty())
    kernels::rms_norm_forward(stream, final_norm_->value(), epsilon, normed.normed, normed.rstd);
  else
    kernels::add_rms_norm_forward(stream, delta, final_norm_->value(), epsilon, sum, normed.normed,
                                  normed.rstd);
}

// Takes the gradient of the final norm's output from scratch.d_normed, where the head left it.
void Transformer::backward(const TokenBatch& batch, Activations& activations,
                           const Pass& pass) const {
  LayerRecords& records = activations.records();
  Block::Scratch& scratch = activations.scratch();
  Activations::Output& output = activations.output();
  {
    const Profile::Scope scope(device().profile(), Part::embedding);
    kernels::rms_norm_backward(scratch.d_normed, output.stream, final_norm_->value(),
                               output.norm.rstd, {}, output.d_stream, final_norm_->gradient_sum(),
                               scratch.norm_workspace);
    pass.gradient_ready(*final_norm_);
  }
  pass.poll();
  for (std::size_t layer = blocks_.size(); layer-- > 0;) {
    const Profile::LayerScope here(device().profile(), static_cast<std::int64_t>(layer), true);
    const auto [saved, derived] = records.begin_backward(layer, pass);
    if (records.rebuilds(layer)) blocks_[layer]->rebuild(saved, derived, scratch, pass);
    blocks_[layer]->backward(output.d_stream, saved, derived, scratch, pass);
    records.end_backward(layer);
  }
  const Profile::Scope scope(device().profile(), Part::embedding);
  apply_dropout(output.d_stream, model_.embedding_dropout, embedding_dropout_key_, pass);
  positions_->backward(output.d_stream, pass);
  kernels::embedding_backward(batch.tokens.flat(), output.d_stream, embedding_->gradient_sum());
  pass.gradient_ready(*embedding_);
}

// The layers have added their losses up; the model's are means over them, of
// exact sums only when all are added up.
void Transformer::add_auxiliary_losses(Activations& activations, const Pass& pass,
                                       const TensorView& losses) const {
  if (num_moe_layers() == 0) return;
  const double divisor = pass.exact.is_on() ? 1 : static_cast<double>(num_moe_layers());
  kernels::add_quotients(activations.scratch().moe->losses, divisor,
                         losses.slice_rows(1, num_losses));
}

void Transformer::move_biases(const TensorView& counts, const TensorView& decision) const {
  std::int64_t row = 0;
  for (const auto& block : blocks_) {
    if (counts.empty() || !block->has_experts()) continue;
    block->move_bias(counts[row], decision);
    ++row;
  }
}

Generation Transformer::make_generation(std::int64_t max_length,
                                        std::int64_t max_new_tokens) const {
  expect(num_moe_layers() == 0 || mesh().degree(Axis::expert) == 1,
         "all experts on this rank, as generation needs");
  Generation generation;
  generation.max_length = max_length;
  if (model_.turns_positions())
    generation.rope =
        kernels::RopeTable(device(), max_length, model_.rope_dim(), rope_spec(model_));
  for (const auto& block : blocks_)
    generation.caches.push_back(block->make_cache(max_length, max_new_tokens));
  return generation;
}

std::unique_ptr<Block::ExtendState> Transformer::make_extend_state(std::int64_t num_tokens,
                                                                   std::int64_t max_length) const {
  auto state = std::make_unique<Block::ExtendState>(device(), placement(), model_, experts_,
                                                    compute_, num_tokens);
  state->positions.emplace(device(), model_, compute_, num_tokens, max_length);
  for (const auto& block : blocks_) block->add_extend_buffers(*state, num_tokens, max_length);
  return state;
}

void Transformer::extend(const TensorView& tokens, Generation& generation,
                         Block::ExtendState& state, const Pass& pass) const {
  kernels::embedding_forward(tokens, embedding_->value(), state.stream);
  positions_->forward(state.stream, *state.positions, pass);
  for (std::size_t layer = 0; layer < blocks_.size(); ++layer)
    blocks_[layer]->extend(state, generation.length, *generation.caches[layer], generation.rope,
                           layer == 0, pass);
  normalize(state.stream, blocks_.empty() ? TensorView{} : state.delta.view(), state.stream,
            state.norm);
  generation.length += tokens.numel();
}

void Transformer::last_logits(const Block::ExtendState& state, const TensorView& out) const {
  const std::int64_t last = state.norm.normed->rows() - 1;
  head_->logits(state.norm.normed->slice_rows(last, last + 1), out);
}

}  // namespace switchyard
