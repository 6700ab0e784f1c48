// The decoder-only language model: embedding, pre-norm blocks (attention, then experts or a dense
// feed-forward), final norm, head. With the matching configuration it computes what Hugging Face's
// Mixtral computes.
//
// The Transformer holds parameters. Activations holds what one micro-batch in flight needs: the
// records of the layers and the scratch that layers share, allocated once and used again each
// micro-step.
#pragma once

#include <memory>
#include <vector>

#include "experts/moe_layer.hpp"
#include "model/activation_observer.hpp"
#include "model/block.hpp"
#include "model/config.hpp"
#include "model/head.hpp"
#include "model/layer_records.hpp"

namespace switchyard {

// A micro-batch on the device: n tokens of each of S sequences, all of them unless sequences are
// split over ranks.
struct TokenBatch {
  TensorView tokens;        // i32 [S n]
  TensorView targets;       // i32 [S n]
  TensorView sequence_ids;  // i64 [S]
  TensorView positions;     // i32 [S n]
  std::int64_t num_sequences = 0;
  std::int64_t sequence_length = 0;  // n
};

// Sums over this rank's tokens of a micro-batch, divided by the global counts of the pass; added
// over ranks and micro-steps they are means over the step. Balance and z: means over the layers.
struct LossSums {
  double cross_entropy = 0;
  double balance = 0;
  double z = 0;
  LossSums& operator+=(const LossSums& other);
};

class Activations;

class Transformer {
 public:
  // placement: of the experts of every layer; outlives the model. Registers all parameters in
  // forward order. store.allocate() comes after, then weights are
  // initialised or loaded, then pack_weights().
  Transformer(ParameterStore& store, const Placement& placement, const ModelConfig& model,
              const ExpertsConfig& experts, DType compute, std::uint64_t seed,
              std::int64_t vocab_size_used);
  ~Transformer();

  // The compute copies of all weights, from the parameters' values. After every change of those.
  void pack_weights();

  // Forward and backward of one micro-batch: adds to the gradients, returns the loss terms.
  LossSums train(const TokenBatch& batch, Activations& activations, const Pass& pass) const;
  // Forward alone. token_losses (f32 [S L]) is written if not empty.
  LossSums evaluate(const TokenBatch& batch, Activations& activations, const Pass& pass,
                    const TensorView& token_losses = {}) const;
  // Logits f32 [S L, V] of a whole batch: for tests and small inputs only.
  void logits(const TokenBatch& batch, Activations& activations, const Pass& pass,
              const TensorView& out) const;

  const ModelConfig& config() const { return model_; }
  const ExpertsConfig& experts_config() const { return experts_; }
  std::int64_t num_moe_layers() const;
  std::int64_t vocab_size() const;  // columns of the head, padding included

 private:
  friend class Activations;
  friend class Decoder;
  // keeps: a backward pass follows.
  void forward(const TokenBatch& batch, Activations& activations, const Pass& pass,
               bool keeps) const;
  void backward(const TokenBatch& batch, Activations& activations, const Pass& pass) const;
  LossSums auxiliary_losses(const Activations& activations) const;

  ParameterStore& store_;
  const Placement& placement_;
  ModelConfig model_;
  ExpertsConfig experts_;
  DType compute_;
  std::int64_t vocab_size_used_;  // ids below it are words; the rest is padding
  RandomKey embedding_dropout_key_;
  Parameter* embedding_ = nullptr;  // [V, H]
  std::vector<std::unique_ptr<Block>> blocks_;
  Parameter* final_norm_ = nullptr;  // [H]
  std::unique_ptr<Head> head_;
};

class Activations {
 public:
  // The options' ConfigErrors: see LayerRecords.
  Activations(const Transformer& model, std::int64_t num_sequences, std::int64_t sequence_length,
              const ActivationOptions& options = {});
  // Sequences that are split over the context ranks of the model's mesh.
  Activations(const Transformer& model, std::int64_t num_sequences, const SequenceSplit& split,
              const ActivationOptions& options = {});
  ~Activations();

  // Where the documents of the next batches begin (kernels/key_ranges.hpp): from now on no
  // token attends to another document. Empty, as at first: documents do not matter.
  void set_documents(kernels::DocumentStarts document_starts);

  // Rows for which there is room: that this rank received in a layer so far, or were reserved.
  std::int64_t max_rows() const;
  // Makes room for that many rows at once: as many as the fullest rank received (RowCapacity).
  void reserve_rows(std::int64_t rows);
  // Told of chosen tensors by the passes that train() makes from now on; null: by none.
  void observe_with(ActivationObserver* observer);
  // Bytes that passes moved to the store of spilled layers and back, so far.
  double bytes_spilled() const;
  // Of this rank's tokens in the last micro-batch, by layer with experts; until the next one.
  std::vector<const RouteCounts*> routes() const;

 private:
  friend class Transformer;
  struct State;  // transformer.cpp
  std::unique_ptr<State> state_;
};

}  // namespace switchyard
