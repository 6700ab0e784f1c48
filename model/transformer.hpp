// The decoder-only language model: embedding, pre-norm blocks (a sequence mixer, then experts or a
// dense feed-forward), final norm, head. With the matching configuration it computes what Hugging
// Face's Mixtral computes.
//
// The Transformer holds parameters. Activations holds what one micro-batch in flight needs;
// Generation and ExtendState hold what the tokens of one sequence do that is continued.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "experts/moe_layer.hpp"
#include "model/activations.hpp"
#include "model/block.hpp"
#include "model/config.hpp"
#include "model/head.hpp"
#include "model/position_embedding.hpp"

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
  TensorView weights = {};           // f32 [S n]: of the targets; empty: 1 each
};

// Sums over this rank's tokens of a micro-batch, divided by the global counts of the pass (the
// cross-entropy by the weight of its targets); added over ranks and micro-steps they are means over
// the step. Balance and z: means over the layers. On the device they are f64 [num_losses] in this
// order.
struct LossSums {
  double cross_entropy = 0;
  double balance = 0;
  double z = 0;
};
inline constexpr std::int64_t num_losses = 3;

// What generation keeps of one sequence.
struct Generation {
  std::int64_t length = 0;  // tokens so far
  std::int64_t max_length = 0;
  kernels::RopeTable rope;                          // for max_length positions, if they are rotary
  std::vector<std::unique_ptr<MixerCache>> caches;  // by layer
};

class Transformer {
 public:
  // placements: of the layers with experts, in their order, or one for all; they outlive the model,
  // and may change between steps (trainer/placement). Registers all parameters in forward order.
  // store.allocate() comes after, then weights are initialised or loaded, then pack_weights().
  Transformer(ParameterStore& store, const std::vector<Placement>& placements,
              const ModelConfig& model, const ExpertsConfig& experts, DType compute,
              std::uint64_t seed, std::int64_t vocab_size_used);
  ~Transformer();

  // The compute copies of all weights, from the parameters' values. After every change of those.
  void pack_weights();

  // Forward and backward of one micro-batch: adds to the gradients and to losses, f64 [num_losses].
  void train(const TokenBatch& batch, Activations& activations, const Pass& pass,
             const TensorView& losses) const;
  // Forward alone. token_losses (f32 [S L]) is written if not empty; see: Head::evaluate.
  void evaluate(const TokenBatch& batch, Activations& activations, const Pass& pass,
                const TensorView& losses, const TensorView& token_losses = {},
                const Head::SeeLogits& see = {}) const;
  // Logits f32 [S L, V] of a whole batch: for tests and small inputs only.
  void logits(const TokenBatch& batch, Activations& activations, const Pass& pass,
              const TensorView& out) const;

  // After a step, before pack_weights(): the bias of each router moves towards balance. counts:
  // what Activations::bias_counts() gives, added up over ranks; decision: see Router. Nothing without
  // biases.
  void move_biases(const TensorView& counts, const TensorView& decision) const;

  // Generation, with all experts on this rank: room for a sequence of at most max_length tokens, of
  // which at most max_new_tokens are added at a time; and buffers for adding num_tokens.
  Generation make_generation(std::int64_t max_length, std::int64_t max_new_tokens) const;
  std::unique_ptr<Block::ExtendState> make_extend_state(std::int64_t num_tokens,
                                                        std::int64_t max_length) const;
  // Adds tokens (i32, as many as `state` was made for) to the sequence.
  void extend(const TensorView& tokens, Generation& generation, Block::ExtendState& state,
              const Pass& pass) const;
  // Logits f32 [1, V] after the last of the tokens that were added with `state`.
  void last_logits(const Block::ExtendState& state, const TensorView& out) const;

  Device& device() const { return store_.device(); }
  const Mesh& mesh() const { return store_.mesh(); }
  // Of the first layer with experts: all have the same numbers of places.
  const Placement& placement() const { return placements_.front(); }
  DType compute() const { return compute_; }
  // Tokens of a unit of exact sums; 0: none.
  std::int64_t unit_rows() const { return store_.unit_rows(); }
  const LayerRecords::Blocks& blocks() const { return blocks_; }
  const ModelConfig& config() const { return model_; }
  const ExpertsConfig& experts_config() const { return experts_; }
  std::int64_t num_moe_layers() const;
  std::int64_t vocab_size() const;  // columns of the head, padding included
  std::int64_t vocab_size_used() const { return vocab_size_used_; }  // ids below it are words

 private:
  // keeps: a backward pass follows.
  void forward(const TokenBatch& batch, Activations& activations, const Pass& pass,
               bool keeps) const;
  void backward(const TokenBatch& batch, Activations& activations, const Pass& pass) const;
  void add_auxiliary_losses(Activations& activations, const Pass& pass,
                            const TensorView& losses) const;
  // sum = stream + delta and its final norm; with an empty delta the norm of `stream`.
  void normalize(const TensorView& stream, const TensorView& delta, const TensorView& sum,
                 Block::Normed& normed) const;

  ParameterStore& store_;
  const std::vector<Placement>& placements_;
  ModelConfig model_;
  ExpertsConfig experts_;
  DType compute_;
  std::int64_t vocab_size_used_;
  RandomKey embedding_dropout_key_;
  // Numbers of the store's layers.
  struct Layers {
    int embedding = 0;
    std::vector<int> blocks;
    int output = 0;  // final norm and head
  } layers_;
  Parameter* embedding_ = nullptr;  // [V, H]
  std::optional<PositionEmbedding> positions_;
  LayerRecords::Blocks blocks_;
  Parameter* final_norm_ = nullptr;  // [H]
  std::unique_ptr<Head> head_;
};

}  // namespace switchyard
