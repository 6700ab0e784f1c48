#include "model/transformer.hpp"

#include <array>

#include "kernels/elementwise.hpp"
#include "kernels/embedding.hpp"
#include "kernels/host_copy.hpp"
#include "kernels/rms_norm.hpp"
#include "model/parameter_spec.hpp"
#include "model/residual_dropout.hpp"
#include "tensor/error.hpp"

namespace switchyard {

LossSums& LossSums::operator+=(const LossSums& other) {
  cross_entropy += other.cross_entropy;
  balance += other.balance;
  z += other.z;
  return *this;
}

namespace {

// Rows that the fullest rank receives in a layer when all experts are equally loaded.
std::int64_t balanced_rows(const ExpertsConfig& experts, const Placement& placement,
                           std::int64_t num_tokens) {
  if (experts.num_experts == 0) return 0;
  const std::int64_t slots = num_tokens * experts.top_k;
  const std::int64_t slots_of_expert = (slots + experts.num_experts - 1) / experts.num_experts;
  return placement.num_ranks() * placement.most_places() * slots_of_expert;
}

// What an observer may see of a layer, now that its forward pass is done.
void show(ActivationObserver& observer, std::size_t layer, LayerRecords& records) {
  records.for_each_tensor(layer, [&](const RecordTensor& part) {
    for (const ObservedTensor which :
         {ObservedTensor::hidden, ObservedTensor::attention_lse, ObservedTensor::gate_probs})
      if (part.name == name_in_record(which))
        observer.observe(static_cast<std::int64_t>(layer), which, *part.tensor);
  });
}

}  // namespace

struct Activations::State {
  State(const Transformer& model, std::int64_t sequences, const SequenceSplit& split,
        std::int64_t length, const ActivationOptions& options);

  std::int64_t num_sequences;
  std::int64_t sequence_length;
  RowCapacity capacity;
  LayerRecords records;
  Block::Scratch scratch;
  Tensor final_stream;  // [T, H]
  Block::Normed final_norm;
  Head::Scratch head;
  Tensor d_stream;  // [T, H]: gradient of the residual stream
  ActivationObserver* observer = nullptr;
};

// length: of this rank's part of a sequence.
Activations::State::State(const Transformer& model, std::int64_t sequences,
                          const SequenceSplit& split, std::int64_t length,
                          const ActivationOptions& options)
    : num_sequences(sequences),
      sequence_length(length),
      capacity(options.planned_rows),
      records(model.blocks_, options, sequences * length, sequences,
              balanced_rows(model.experts_, model.placement_, sequences * length), capacity),
      scratch(model.store_.device(), model.store_.mesh(), model.placement_, model.model_,
              model.experts_, model.compute_, sequences, split, capacity),
      final_stream(model.store_.device(), Purpose::activation, model.compute_,
                   {sequences * length, model.model_.hidden}),
      final_norm(Block::make_normed(model.store_.device(), model.compute_, sequences * length,
                                    model.model_.hidden)),
      head(model.store_.device(), model.model_, model.compute_, sequences * length),
      d_stream(model.store_.device(), Purpose::activation, model.compute_,
               {sequences * length, model.model_.hidden}) {}

Activations::Activations(const Transformer& model, std::int64_t num_sequences,
                         std::int64_t sequence_length, const ActivationOptions& options)
    : Activations(model, num_sequences, SequenceSplit(sequence_length), options) {}

Activations::Activations(const Transformer& model, std::int64_t num_sequences,
                         const SequenceSplit& split, const ActivationOptions& options)
    : state_(std::make_unique<State>(model, num_sequences, split,
                                     split.num_local(model.store_.mesh().index(Axis::context)),
                                     options)) {
  set_documents({});
}

Activations::~Activations() = default;

void Activations::set_documents(kernels::DocumentStarts document_starts) {
  state_->scratch.attention.attention.begin(document_starts);
}

std::int64_t Activations::max_rows() const {
  return state_->capacity.rows();
}

void Activations::reserve_rows(std::int64_t rows) {
  state_->capacity.require(rows);
}

void Activations::observe_with(ActivationObserver* observer) {
  state_->observer = observer;
}

double Activations::bytes_spilled() const {
  return state_->records.bytes_spilled();
}

std::vector<const RouteCounts*> Activations::routes() const {
  std::vector<const RouteCounts*> routes;
  for (std::size_t layer = 0; layer < state_->records.num_layers(); ++layer)
    if (const RouteCounts* route = state_->records.route(layer)) routes.push_back(route);
  return routes;
}

Transformer::Transformer(ParameterStore& store, const Placement& placement,
                         const ModelConfig& model, const ExpertsConfig& experts, DType compute,
                         std::uint64_t seed, std::int64_t vocab_size_used)
    : store_(store),
      placement_(placement),
      model_(model),
      experts_(experts),
      compute_(compute),
      vocab_size_used_(vocab_size_used),
      embedding_dropout_key_(random_key(seed, "dropout embedding")) {
  expect(compute == DType::f32 || compute == DType::bf16, "the compute type is f32 or bf16");
  embedding_ = &store.add(weight_spec("embedding.weight", {model.vocab_size, model.hidden},
                                      model.effective_embedding_std()));
  for (std::int64_t layer = 0; layer < model.num_layers; ++layer)
    blocks_.push_back(std::make_unique<Block>(store, layer, model, experts, placement, compute,
                                              seed, num_moe_layers()));
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

LossSums Transformer::train(const TokenBatch& batch, Activations& activations,
                            const Pass& pass) const {
  forward(batch, activations, pass, true);
  Activations::State& state = *activations.state_;
  LossSums losses = auxiliary_losses(activations);
  {
    const Profile::Scope scope(store_.device().profile(), Part::head);
    losses.cross_entropy = head_->train(state.final_norm.normed, batch.targets.flat(),
                                        state.scratch.d_normed, state.head, pass);
  }
  backward(batch, activations, pass);
  return losses;
}

LossSums Transformer::evaluate(const TokenBatch& batch, Activations& activations, const Pass& pass,
                               const TensorView& token_losses) const {
  forward(batch, activations, pass, false);
  Activations::State& state = *activations.state_;
  LossSums losses = auxiliary_losses(activations);
  const Profile::Scope scope(store_.device().profile(), Part::head);
  losses.cross_entropy = head_->evaluate(state.final_norm.normed, batch.targets.flat(),
                                         token_losses, state.head, pass);
  return losses;
}

void Transformer::logits(const TokenBatch& batch, Activations& activations, const Pass& pass,
                         const TensorView& out) const {
  forward(batch, activations, pass, false);
  const Profile::Scope scope(store_.device().profile(), Part::head);
  const TensorView& x = activations.state_->final_norm.normed;
  head_->logits(x, out.reshape({x.rows(), vocab_size()}));
}

void Transformer::forward(const TokenBatch& batch, Activations& activations, const Pass& pass,
                          bool keeps) const {
  Activations::State& state = *activations.state_;
  expect(
      batch.num_sequences == state.num_sequences && batch.sequence_length == state.sequence_length,
      "a batch of the size that the activations were made for");
  expect(pass.sequence_length == batch.sequence_length &&
             pass.sequence_ids.numel() == batch.num_sequences &&
             pass.positions.numel() == batch.tokens.numel(),
         "a pass over the tokens of the batch");
  ActivationObserver* observer = keeps ? state.observer : nullptr;
  if (observer != nullptr) observer->begin(batch.sequence_ids);
  TensorView stream = state.final_stream;  // of a model without blocks
  if (!blocks_.empty()) stream = state.records.begin_forward(0, pass).saved.stream;
  {
    const Profile::Scope scope(store_.device().profile(), Part::embedding);
    kernels::embedding_forward(batch.tokens.flat(), embedding_->value(), stream);
    apply_dropout(stream, model_.embedding_dropout, embedding_dropout_key_, pass);
  }
  if (state.scratch.moe) kernels::fill_zero(state.scratch.moe->losses);
  TensorView delta;  // what the block before adds to the stream
  for (std::size_t layer = 0; layer < blocks_.size(); ++layer) {
    const Profile::LayerScope here(store_.device().profile(), static_cast<std::int64_t>(layer),
                                   false);
    const auto [saved, derived] = state.records.begin_forward(layer, pass);
    blocks_[layer]->forward(stream, delta, saved, derived, state.scratch, state.capacity, pass);
    stream = derived.stream;
    delta = state.scratch.delta;
    if (observer != nullptr) show(*observer, layer, state.records);
    state.records.end_forward(layer, keeps);
  }
  const Profile::Scope scope(store_.device().profile(), Part::embedding);
  const auto epsilon = static_cast<float>(model_.norm_epsilon);
  if (delta.empty())
    kernels::rms_norm_forward(stream, final_norm_->value(), epsilon, state.final_norm.normed,
                              state.final_norm.rstd);
  else
    kernels::add_rms_norm_forward(stream, delta, final_norm_->value(), epsilon, state.final_stream,
                                  state.final_norm.normed, state.final_norm.rstd);
}

// Takes the gradient of the final norm's output from scratch.d_normed, where the head left it.
void Transformer::backward(const TokenBatch& batch, Activations& activations,
                           const Pass& pass) const {
  Activations::State& state = *activations.state_;
  {
    const Profile::Scope scope(store_.device().profile(), Part::embedding);
    kernels::rms_norm_backward(state.scratch.d_normed, state.final_stream, final_norm_->value(),
                               state.final_norm.rstd, {}, state.d_stream, final_norm_->gradient(),
                               state.scratch.norm_workspace);
    pass.gradient_ready(*final_norm_);
  }
  pass.poll();
  for (std::size_t layer = blocks_.size(); layer-- > 0;) {
    const Profile::LayerScope here(store_.device().profile(), static_cast<std::int64_t>(layer),
                                   true);
    const auto [saved, derived] = state.records.begin_backward(layer, pass);
    if (state.records.rebuilds(layer)) blocks_[layer]->rebuild(saved, derived, state.scratch, pass);
    blocks_[layer]->backward(state.d_stream, saved, derived, state.scratch, pass);
    state.records.end_backward(layer);
  }
  const Profile::Scope scope(store_.device().profile(), Part::embedding);
  apply_dropout(state.d_stream, model_.embedding_dropout, embedding_dropout_key_, pass);
  kernels::embedding_backward(batch.tokens.flat(), state.d_stream, embedding_->gradient());
  pass.gradient_ready(*embedding_);
}

// The layers have added their losses up; the model's are means over them.
LossSums Transformer::auxiliary_losses(const Activations& activations) const {
  LossSums sums;
  const std::int64_t num_layers = num_moe_layers();
  if (num_layers == 0) return sums;
  std::array<double, 2> losses{};
  kernels::copy_to_host<double>(activations.state_->scratch.moe->losses, losses);
  sums.balance = losses[0] / static_cast<double>(num_layers);
  sums.z = losses[1] / static_cast<double>(num_layers);
  return sums;
}

}  // namespace switchyard
