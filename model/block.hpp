// One pre-norm block of the decoder. The residual stream s gains two terms:
//   s' = s + attention(norm(s))        s'' = s' + feed_forward(norm(s'))
// An addition is fused with the norm that follows it, so a block leaves its last term pending
// (Scratch::delta) for the next block, or for the final norm. The feed-forward has experts or not.
// In the backward pass one tensor, the gradient of the stream, runs through all blocks.
#pragma once

#include <optional>
#include <string>

#include "experts/moe_layer.hpp"
#include "model/attention_layer.hpp"
#include "model/feed_forward.hpp"

namespace switchyard {

class Block {
 public:
  // What an RMSNorm's backward pass reads, and its output.
  struct NormSaved {
    Tensor stream;  // [T, H] before the norm
    Tensor rstd;    // f32 [T]
    Tensor normed;  // [T, H]
  };
  struct Saved {
    NormSaved attention_norm;
    AttentionLayer::Saved attention;
    NormSaved feed_forward_norm;
    std::optional<FeedForward::Saved> dense;
    std::optional<MoeLayer::Saved> moe;
  };
  // Shared by all blocks; registers growable buffers, so it stays where it was made.
  struct Scratch {
    Scratch(Device& device, const ModelConfig& model, const ExpertsConfig& experts, DType compute,
            std::int64_t num_sequences, std::int64_t sequence_length, int expert_ranks,
            RowCapacity& capacity);
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    AttentionLayer::Scratch attention;
    std::optional<FeedForward::Scratch> dense;  // if some layer has no experts
    std::optional<MoeLayer::Scratch> moe;       // if some layer has
    Tensor delta;           // [T, H]: what waits to be added to the stream, or its gradient
    Tensor d_normed;        // [T, H]: gradient of a norm's output
    Tensor norm_workspace;  // u8
  };
  // Everything that the blocks share when num_tokens tokens are added to a sequence in generation.
  struct ExtendState {
    ExtendState(Device& device, const ModelConfig& model, const ExpertsConfig& experts,
                DType compute, std::int64_t num_tokens, std::int64_t max_length);
    ExtendState(const ExtendState&) = delete;
    ExtendState& operator=(const ExtendState&) = delete;
    NormSaved norm;  // norm.stream: the residual stream
    Tensor delta;    // [num_tokens, H]
    AttentionLayer::ExtendScratch attention;
    std::optional<FeedForward::Saved> dense;
    std::optional<FeedForward::Scratch> dense_scratch;
    RowCapacity capacity;
    std::optional<MoeLayer::Saved> moe;
    std::optional<MoeLayer::Scratch> moe_scratch;
  };

  // Registers the parameters "layers.<index>.*". num_moe_layers: see MoeLayer.
  Block(ParameterStore& store, std::int64_t index, const ModelConfig& model,
        const ExpertsConfig& experts, DType compute, std::uint64_t seed,
        std::int64_t num_moe_layers);

  bool has_experts() const { return moe_.has_value(); }
  static NormSaved make_norm_saved(Device& device, DType compute, std::int64_t num_tokens,
                                   std::int64_t hidden);
  Saved make_saved(std::int64_t num_tokens, std::int64_t num_sequences) const;
  // The growable buffers of a Saved that has found its final place.
  static void register_buffers(Saved& saved, RowCapacity& capacity);
  // The buffers of one feed-forward of this block's kind, for all blocks of that kind.
  void add_extend_buffers(ExtendState& state, std::int64_t num_tokens) const;

  void pack_weights();
  // stream: [T, H] before the pending term `delta` of the block before. The first block has none:
  // there `delta` is empty and `stream` is saved.attention_norm.stream. Afterwards
  // saved.feed_forward_norm.stream is the stream and scratch.delta the pending term, which may be
  // the same memory as `delta`.
  void forward(const TensorView& stream, const TensorView& delta, Saved& saved, Scratch& scratch,
               RowCapacity& capacity, const Pass& pass) const;
  // d_stream: [T, H], the gradient of the stream after the block; becomes the one before it.
  void backward(const TensorView& d_stream, Saved& saved, Scratch& scratch, const Pass& pass) const;
  // Generation, as forward: state.norm.stream and state.delta are read and left for the next block.
  // num_cached: tokens in the cache. first_block: nothing is pending in state.delta.
  void extend(ExtendState& state, std::int64_t num_cached, AttentionLayer::Cache& cache,
              const kernels::RopeTable& rope, bool first_block, const Pass& pass) const;

 private:
  void add_and_norm(const TensorView& stream, const TensorView& delta, const Parameter& weight,
                    NormSaved& saved) const;
  void norm_backward(const Parameter& weight, const NormSaved& saved, const TensorView& d_stream,
                     Scratch& scratch, const Pass& pass) const;
  void feed_forward_backward(const TensorView& dy, Saved& saved, Scratch& scratch,
                             const Pass& pass) const;

  Device& device_;
  std::int64_t hidden_;
  DType compute_;
  float epsilon_;
  double residual_dropout_;
  RandomKey attention_dropout_key_;
  RandomKey feed_forward_dropout_key_;
  Parameter& attention_norm_;
  AttentionLayer attention_;
  Parameter& feed_forward_norm_;
  std::optional<FeedForward> dense_;
  std::optional<MoeLayer> moe_;
};

}  // namespace switchyard
