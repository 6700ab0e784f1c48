// One pre-norm block of the decoder. The residual stream s gains two terms:
//   s' = s + mixer(norm(s))        s'' = s' + feed_forward(norm(s'))
// The mixer, such as attention, lets tokens learn of each other (model/sequence_mixer.hpp).
// An addition is fused with the norm that follows it, so a block leaves its last term pending
// (Scratch::delta) for the next block, or for the final norm. The feed-forward has experts or not;
// a block may also be without one: then s' is its last, and the mixer's term the pending one.
// In the backward pass one tensor, the gradient of the stream, runs through all blocks.
//
// What a block's backward pass reads is a record of two parts. Saved is always there: the stream
// that came in, what the mixer decided or exchanged, the router's decision. Derived is as forward
// left it, or computed again from Saved by rebuild(), which neither attends nor routes again. Who
// owns the records, and whether they stay where they are meanwhile, the block does not know.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "experts/moe_layer.hpp"
#include "model/feed_forward.hpp"
#include "model/position_embedding.hpp"
#include "model/sequence_mixer.hpp"

namespace switchyard {

class Block {
 public:
  // What an RMSNorm leaves.
  struct Normed {
    Tensor rstd;    // f32 [T]
    Tensor normed;  // [T, H]

    void for_each_tensor(const RecordVisitor& visit);
  };
  // Blocks of several kinds may use a record in turn. It then names all its tensors, or those that
  // a pass of one block fills.
  struct Saved {
    Tensor stream;  // [T, H] as it enters the block
    ByKind<MixerRecord> mixers;
    std::optional<MoeLayer::Saved> moe;

    void for_each_tensor(const RecordVisitor& visit, const Block* of = nullptr);
  };
  struct Derived {
    Normed mixer_norm;
    ByKind<MixerRecord> mixers;
    Tensor stream;  // [T, H] between mixer and feed-forward, if there is one
    Normed feed_forward_norm;
    std::optional<FeedForward::Derived> dense;
    std::optional<MoeLayer::Derived> moe;

    // num_rows: see MoeLayer::Derived.
    void for_each_tensor(std::int64_t num_rows, const RecordVisitor& visit,
                         const Block* of = nullptr);
  };
  // Shared by all blocks; registers growable buffers, so it stays where it was made.
  struct Scratch {
    Scratch(Device& device, const Mesh& mesh, const Placement& placement, const ModelConfig& model,
            const ExpertsConfig& experts, DType compute, std::int64_t num_sequences,
            const SequenceSplit& split, RowCapacity& capacity, std::int64_t unit_rows = 0);
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    RowCapacity& capacity;
    kernels::RopeTable rope;  // all positions of a sequence, if they are rotary
    ByKind<MixerScratch> mixers;
    std::optional<FeedForward::Scratch> dense;  // if some layer has no experts
    std::optional<MoeLayer::Scratch> moe;       // if some layer has
    Tensor delta;           // [T, H]: what waits to be added to the stream, or its gradient
    Tensor d_normed;        // [T, H]: gradient of a norm's output
    Tensor norm_workspace;  // u8
  };
  // Everything that the blocks share when num_tokens tokens are added to a sequence in generation.
  struct ExtendState {
    ExtendState(Device& device, const Placement& placement, const ModelConfig& model,
                const ExpertsConfig& experts, DType compute, std::int64_t num_tokens);
    ExtendState(const ExtendState&) = delete;
    ExtendState& operator=(const ExtendState&) = delete;
    Tensor stream;  // [num_tokens, H]: the residual stream
    std::optional<PositionEmbedding::Scratch> positions;
    Normed norm;
    Tensor delta;  // [num_tokens, H]
    ByKind<MixerScratch> mixers;
    std::optional<FeedForward::Derived> dense;
    std::optional<FeedForward::Scratch> dense_scratch;
    RowCapacity capacity;
    std::optional<MoeLayer::Saved> moe;
    std::optional<MoeLayer::Derived> moe_derived;
    std::optional<MoeLayer::Scratch> moe_scratch;
  };

  // Registers the parameters "layers.<index>.*". num_moe_layers: see MoeLayer.
  Block(ParameterStore& store, std::int64_t index, const ModelConfig& model,
        const ExpertsConfig& experts, const Placement& placement, DType compute, std::uint64_t seed,
        std::int64_t num_moe_layers);

  bool has_experts() const { return moe_.has_value(); }
  bool has_feed_forward() const { return moe_.has_value() || dense_.has_value(); }
  // The stream behind the block's forward pass, before the pending term.
  const Tensor& stream_of(const Saved& saved, const Derived& derived) const {
    return has_feed_forward() ? derived.stream : saved.stream;
  }
  // After a step, of a block with experts: see Router.
  void move_bias(const TensorView& counts, const TensorView& decision) const {
    moe_->move_bias(counts, decision);
  }
  static Normed make_normed(Device& device, DType compute, std::int64_t num_tokens,
                            std::int64_t hidden);
  Saved make_saved(std::int64_t num_tokens, std::int64_t num_sequences) const;
  // keep_gate_up: whether the products inside the feed-forward, the largest part, stay for the
  // backward; without, it computes them again in small blocks.
  Derived make_derived(std::int64_t num_tokens, std::int64_t num_sequences,
                       bool keep_gate_up) const;
  // For a record that blocks of several kinds use in turn: what it lacks for this one.
  void extend_saved(Saved& saved, std::int64_t num_tokens, std::int64_t num_sequences) const;
  void extend_derived(Derived& derived, std::int64_t num_tokens, std::int64_t num_sequences,
                      bool keep_gate_up) const;
  // The scratch of this block's mixer, for all blocks with mixers of the kind.
  void add_scratch(Scratch& scratch, std::int64_t num_sequences, const SequenceSplit& split) const;
  // The tensors of a record that this block's pass fills.
  void for_each_tensor(Saved& saved, Derived& derived, const RecordVisitor& visit) const;
  // The buffers of one mixer and one feed-forward of this block's kinds, for all blocks of those.
  void add_extend_buffers(ExtendState& state, std::int64_t num_tokens,
                          std::int64_t max_length) const;
  std::unique_ptr<MixerCache> make_cache(std::int64_t max_length,
                                         std::int64_t max_new_tokens) const {
    return mixer_->make_cache(max_length, max_new_tokens);
  }

  void pack_weights();
  // stream: [T, H] before the pending term `delta` of the block before. The first block has none:
  // there `delta` is empty and `stream` is saved.stream. Afterwards stream_of() is the stream
  // and scratch.delta the pending term, which may be the same memory as `delta`. `stream` may lie
  // in `derived`.
  void forward(const TensorView& stream, const TensorView& delta, Saved& saved, Derived& derived,
               Scratch& scratch, const Pass& pass) const;
  // Fills `derived` as the forward pass did, to the bit.
  void rebuild(const Saved& saved, Derived& derived, Scratch& scratch, const Pass& pass) const;
  // d_stream: [T, H], the gradient of the stream after the block; becomes the one before it.
  void backward(const TensorView& d_stream, const Saved& saved, const Derived& derived,
                Scratch& scratch, const Pass& pass) const;
  // Generation, as forward: state.norm.stream and state.delta are read and left for the next block.
  // num_cached: tokens in the cache. first_block: nothing is pending in state.delta.
  void extend(ExtendState& state, std::int64_t num_cached, MixerCache& cache,
              const kernels::RopeTable& rope, bool first_block, const Pass& pass) const;

 private:
  static void visit_mixers(const ByKind<MixerRecord>& mixers, const RecordVisitor& visit,
                           const Block* of);
  MixerRecord& own(const ByKind<MixerRecord>& mixers) const { return *mixers.at(mixer_->kind()); }
  // sum = stream + delta and its norm; with an empty delta the norm of `stream`, which is `sum`.
  void add_and_norm(const TensorView& stream, const TensorView& delta, const TensorView& sum,
                    const Parameter& weight, Normed& normed) const;
  void norm_backward(const Parameter& weight, const TensorView& stream, const Normed& normed,
                     const TensorView& d_stream, Scratch& scratch, const Pass& pass) const;
  LayerContext context_of(Scratch& scratch, const Pass& pass) const {
    return {pass, index_, scratch.rope, *scratch.mixers.at(mixer_->kind())};
  }
  // Drops of scratch.delta, what the mixer returned.
  void drop_of_mixer(Scratch& scratch, const Pass& pass) const;
  // The same, and adds it to the stream.
  void finish_mixer(const Saved& saved, Derived& derived, Scratch& scratch, const Pass& pass) const;
  void feed_forward_backward(const TensorView& dy, const Saved& saved, const Derived& derived,
                             Scratch& scratch, const Pass& pass) const;

  Device& device_;
  std::int64_t index_;
  std::int64_t hidden_;
  DType compute_;
  float epsilon_;
  double residual_dropout_;
  RandomKey mixer_dropout_key_;
  RandomKey feed_forward_dropout_key_;
  Parameter& mixer_norm_;
  std::unique_ptr<SequenceMixer> mixer_;
  Parameter* feed_forward_norm_;  // null without a feed-forward
  std::optional<FeedForward> dense_;
  std::optional<MoeLayer> moe_;
};

}  // namespace switchyard
