// Causal self-attention with grouped queries, over all tokens before or a window of them, with
// learned sinks or without:
//   [q k v] = x Wqkv^T      q, k [normed and] turned by position      y = attention(q, k, v) Wout^T
// With model.clip_qkv q, k and v are held within it before they turn.
// A layer may convolve q, k and v over the last tokens before that.
// Nothing is turned unless positions are rotary (model.position); with ALiBi a head's scores are
// lowered by its slope times the distance, with relative positions a learned number is added, and
// each head of a window may learn its span.
// The three branches of native sparse attention are attention each, whose outputs are gated
// (model/mixers/branch_gates.hpp).
// Where sequences are split over context ranks, the ranks exchange what attention needs
// (parallel/context/context_attention.hpp); all else goes by rows.
// Of kind lsh (kernels/attention/hash_classes.hpp) keys are the turned queries, of length 1: [q v]
// = x Wqkv^T, and scores are not scaled. Rows of Wqkv are the query heads, then the key heads, then
// the value heads. In generation keys and values of the tokens so far are in a cache. Legend: T
// tokens = S sequences of L, H hidden, D head_dim, A num_heads, G num_kv_heads.
#pragma once

#include <array>
#include <optional>
#include <string>

#include "experts/row_bias.hpp"
#include "kernels/attention/attention.hpp"
#include "kernels/products/linear.hpp"
#include "model/config.hpp"
#include "model/mixers/adaptive_span.hpp"
#include "model/mixers/block_summaries.hpp"
#include "model/mixers/branch_gates.hpp"
#include "model/mixers/causal_convolution.hpp"
#include "model/mixers/compressed_memory.hpp"
#include "model/mixers/distance_keys.hpp"
#include "model/mixers/memory_slots.hpp"
#include "model/mixers/query_key_norm.hpp"
#include "model/mixers/relative_bias.hpp"
#include "model/sequence_mixer.hpp"
#include "parallel/context/block_attention.hpp"
#include "parallel/context/context_attention.hpp"
#include "parallel/parameter.hpp"

namespace switchyard {

// What a head learns by distance.
std::int64_t num_bias_parameters(const ModelConfig& model, const MixerConfig& attention);

// Of the layer's attention over so many sequences on one rank.
AttentionSizes attention_sizes(const ModelConfig& model, const MixerConfig& attention,
                               std::int64_t num_sequences);

// Columns of what x is projected to: queries, keys and values, or queries and values where keys are
// the queries.
std::int64_t projected_cols(const ModelConfig& model, bool shares_keys);

// Those that layers of the model ask for, each once.
std::vector<kernels::KeyPattern> attention_patterns(const ModelConfig& model);

class AttentionMixer final : public SequenceMixer {
 public:
  struct Saved final : MixerRecord {
    Tensor out;     // [T, A D]: of the attention, before Wout
    Tensor lse;     // f32 [T, A]; of branches [3 T, A]
    Tensor halo;    // rows before this rank's runs, of the convolution; if there is one, and split
    Tensor chosen;  // i32 [T, G t]: blocks that each query chose; of hierarchical attention
    Tensor branches;  // [3 T, A D]: outputs before the gates; only with gates

    void for_each_tensor(const RecordVisitor& visit) override;
  };
  struct Derived final : MixerRecord {
    // [T, (A + 2 G) D], or [T, 2 A D] of queries and values: before the convolution, or to be made
    // queries and keys of; only then
    Tensor projected;
    Tensor qkv;                  // [T, (A + 2 G) D], q and k after the rotation
    QueryKeyNorm::Derived norm;  // if there is one
    Tensor inside;               // u8 like qkv: what was not clipped; only with clip_qkv
    Tensor gates;                // f32 [T, 3 A]: only with gates

    void for_each_tensor(const RecordVisitor& visit) override;
  };
  struct Scratch final : MixerScratch {
    Scratch(Device& device, const Mesh& mesh, const ModelConfig& model,
            const MixerConfig& attention, DType compute, std::int64_t num_sequences,
            const SequenceSplit& split);
    void set_documents(kernels::DocumentStarts document_starts) override;

    ContextAttention attention;
    std::optional<CausalConvolution::Scratch> conv;
    MemorySlots::Scratch slots;       // only with some
    DistanceKeys::Scratch distances;  // only with keys of distances
    std::optional<CompressedMemory::Scratch> compressed;
    Tensor dqkv;                    // [T, (A + 2 G) D]
    Tensor dout;                    // [T, A D]
    Tensor dq_of_memory;            // [T, A D]: only where gradients stop at segments
    Tensor ones;                    // of biases; only with some
    Tensor d_bias;                  // f32 [T, A U]: only with numbers learned by distance
    Tensor bias_ones;               // f32 [T, 1]: likewise
    Tensor d_normed;                // [T, (A + G) D]: only with a norm
    Tensor norm_workspace;          // likewise
    BranchGates::Scratch branches;  // only with gates
  };
  // Keys (turned) and values of one sequence, in one layer: of all tokens, or of those that a
  // window may still show and of the first that are global, so that its size is bounded however
  // long the sequence becomes.
  class Cache final : public MixerCache {
   public:
    // conv: taps, 0 for none. At most max_new_tokens are added at a time.
    Cache(Device& device, const ModelConfig& model, const kernels::KeyPattern& pattern,
          std::int64_t conv, DType compute, std::int64_t max_length, std::int64_t max_new_tokens);
    // Room for `num_tokens` behind the `num_cached` tokens of the sequence: what no later token
    // sees makes way.
    void make_room(std::int64_t num_cached, std::int64_t num_tokens);
    // Tokens that have made way: a later token's row is so much before its position.
    std::int64_t num_gone() const { return num_gone_; }
    // Of the tokens in the first `num_rows` rows.
    std::vector<PositionRange> positions(std::int64_t num_rows) const;
    void clear() override { num_gone_ = 0; }
    const Tensor& keys() const { return keys_; }
    const Tensor& values() const { return values_; }
    const Tensor& last_rows() const { return last_rows_; }
    std::optional<CompressedMemory::Cache> compressed;  // if there is such a memory

   private:
    kernels::KeyPattern pattern_;
    std::int64_t num_gone_ = 0;  // behind the globals
    Tensor keys_;                // [rows, G D]
    Tensor values_;              // [rows, G D]
    Tensor last_rows_;           // [w - 1, (A + 2 G) D]: the last before the convolution
  };
  // Buffers for `num_tokens` new tokens of a sequence of at most max_length, for layers with any of
  // the patterns.
  struct ExtendScratch final : MixerScratch {
    ExtendScratch(Device& device, const ModelConfig& model,
                  std::span<const kernels::KeyPattern> patterns, std::int64_t conv, DType compute,
                  std::int64_t num_tokens, std::int64_t max_length, std::int64_t num_projected,
                  const std::optional<QueryKeyNorm>& query_key_norm);
    Tensor projected;                 // [num_tokens, (A + 2 G) D], with a convolution
    Tensor rows;                      // [w - 1 + num_tokens, (A + 2 G) D], likewise
    Tensor qkv;                       // [num_tokens, (A + 2 G) D]
    QueryKeyNorm::Derived norm;       // only with one
    Tensor out;                       // [num_tokens, A D]
    Tensor lse;                       // f32 [num_tokens, A]
    Tensor first_keys, end_keys;      // i32 [sets * num_tokens]
    Tensor query_rows, key_rows;      // i32 [num_tokens], [max_length]; only for patterns of blocks
    Tensor workspace;                 // of the attention kernel
    MemorySlots::Scratch slots;       // only with some
    DistanceKeys::Scratch distances;  // only with keys of distances
    std::optional<CompressedMemory::Scratch> compressed;
    // Only of hierarchical attention.
    std::optional<BlockAttention> blocks;
    std::optional<ClassAttention> classes;
    Tensor sums;             // f32 [num_tokens, A D]
    Tensor chosen;           // i32 [num_tokens, G t]
    Tensor branches, gates;  // [3 num_tokens, A D], f32 [num_tokens, 3 A]; only with gates
  };

  // Registers `prefix`.qkv.weight [(A + 2 G) D, H], `prefix`.output.weight [H, A D] and, if the
  // layer has them, `prefix`.sinks [A, number of sinks], `prefix`.conv.weight [(A + 2 G) D, w] and
  // what MemorySlots, AdaptiveSpan, RelativeBias, BranchGates and CompressedMemory do; with biases
  // `prefix`.qkv.bias and `prefix`.output.bias; with a norm what QueryKeyNorm does. layer: its
  // number in the model, from which random blocks are drawn.
  AttentionMixer(ParameterStore& store, const std::string& prefix, const ModelConfig& model,
                 const MixerConfig& attention, DType compute, std::int64_t layer = 0);

  std::string_view kind() const override { return kind_; }
  std::unique_ptr<MixerRecord> make_saved(std::int64_t num_tokens,
                                          std::int64_t num_sequences) const override;
  std::unique_ptr<MixerRecord> make_derived(std::int64_t num_tokens,
                                            std::int64_t num_sequences) const override;
  std::unique_ptr<MixerScratch> make_scratch(std::int64_t num_sequences,
                                             const SequenceSplit& split) const override;
  std::unique_ptr<MixerCache> make_cache(std::int64_t max_length,
                                         std::int64_t max_new_tokens) const override;
  std::unique_ptr<MixerScratch> make_extend_scratch(std::int64_t num_tokens,
                                                    std::int64_t max_length) const override;
  void pack_weights() override;
  void forward(const TensorView& x, const TensorView& y, MixerRecord& saved, MixerRecord& derived,
               const LayerContext& context) const override;
  // Without the attention: what it returned is in `saved`.
  void rebuild(const TensorView& x, const TensorView& y, const MixerRecord& saved,
               MixerRecord& derived, const LayerContext& context) const override;
  void backward(const TensorView& dy, const TensorView& x, const TensorView& dx,
                const MixerRecord& saved, const MixerRecord& derived,
                const LayerContext& context) const override;
  void extend(const TensorView& x, const TensorView& y, std::int64_t num_cached, MixerCache& cache,
              const LayerContext& context) const override;

 private:
  // Columns of a [T, (A + 2 G) D] buffer.
  struct Heads {
    TensorView q, k, v, rotated;  // rotated: q and k
  };
  Heads heads_of(const TensorView& qkv) const;
  TensorView sinks() const { return sinks_ == nullptr ? TensorView{} : sinks_->value(); }
  // What is learned by distance; empty: nothing.
  kernels::DistanceBias bias() const;
  AttentionInputs inputs_of(const Heads& heads, const Saved& saved, const Scratch& scratch) const;
  // Where the projection goes: to the convolution, or at once to q, k and v.
  TensorView projected_in(const Derived& derived) const {
    return derived.projected.empty() ? derived.qkv.view() : derived.projected.view();
  }
  // Of a [T, (A + 2 G) D] buffer, what the projection or the convolution makes.
  TensorView projected_part(const TensorView& qkv) const {
    return qkv.slice_cols(0, projected_cols(model_, config_.shares_keys()));
  }
  void turn(const TensorView& rotated, kernels::Rotation rotation,
            const LayerContext& context) const;
  void project(const TensorView& x, const TensorView& projected) const;
  // inside: see kernels/rows/clip.hpp.
  void norm_and_turn(const TensorView& qkv, QueryKeyNorm::Derived& norm, const TensorView& inside,
                     const LayerContext& context) const;
  void project_output(const TensorView& out, const TensorView& y) const;
  // A result of attention and its gradient.
  struct Attended {
    TensorView out, lse, dout;
  };
  // What attention by one pattern gives: the gradient of q and k as they were turned, behind the
  // norm if there is one, and of v, in the scratch; those of sinks if asked for, and by distance.
  void backward_of_attention(const kernels::KeyPattern& pattern, bool with_sinks,
                             const Attended& attended, const Saved& saved, const Derived& derived,
                             const LayerContext& context) const;
  // Of all branches, by the gradient of their gated sum in the scratch; that of x through the gates
  // stays there.
  void backward_of_branches(const TensorView& x, const Saved& saved, const Derived& derived,
                            const LayerContext& context) const;
  // Of q and k, and of v, as they are in the scratch.
  std::array<TensorView, 2> attention_gradients(const Scratch& scratch) const;
  // From there to what the projection made, in scratch.dqkv, and the gradient of its weights.
  void backward_to_projection(const TensorView& x, const Saved& saved, const Derived& derived,
                              const LayerContext& context) const;
  // The memory before a segment: its keys and values teach the weights alone. Leaves the gradient
  // of q in scratch.dq_of_memory.
  void learn_of_memory(const TensorView& x, const Saved& saved, const Derived& derived,
                       const LayerContext& context) const;
  // Of queries and keys as they were turned: behind the norm, if there is one.
  TensorView turned_gradients(const Scratch& scratch) const {
    return norm_ ? scratch.d_normed.view() : heads_of(scratch.dqkv).rotated;
  }
  // Of tokens at these positions, the last that the cache has, before sinks and slots: by one
  // pattern of positions, and by all.
  void attend_by(const kernels::KeyPattern& all_heads, const AttentionInputs& inputs,
                 const PositionRange& positions, const std::vector<PositionRange>& of_keys,
                 const ExtendScratch& scratch, const TensorView& out) const;
  void attend_to_branches_of_cache(const AttentionInputs& inputs, const PositionRange& positions,
                                   const std::vector<PositionRange>& of_keys,
                                   ExtendScratch& scratch) const;
  void attend_to_cache(const TensorView& q, const PositionRange& positions, std::int64_t num_rows,
                       const Cache& cache, ExtendScratch& scratch) const;

  Device& device_;
  const Mesh& mesh_;
  ModelConfig model_;
  kernels::KeyPattern pattern_;
  kernels::KeyPattern own_, memory_;  // parts of it, where gradients stop at segments
  std::vector<float> slopes_;         // by head, of ALiBi; none: nothing is lowered by distance
  MixerConfig config_;
  std::int64_t conv_width_;  // 0: no convolution
  std::string kind_;
  DType compute_;
  Parameter& qkv_;
  Parameter& output_;
  Parameter* sinks_;  // null: none
  std::optional<CausalConvolution> conv_;
  std::optional<RowBias> qkv_bias_, output_bias_;
  std::optional<QueryKeyNorm> norm_;
  std::optional<RelativeBias> relative_;
  std::optional<AdaptiveSpan> span_;  // or this one
  std::optional<MemorySlots> slots_;
  std::optional<DistanceKeys> distances_;
  std::optional<BlockSummaries> summaries_;
  std::optional<CompressedMemory> compressed_;
  std::optional<BranchGates> gates_;
  Tensor directions_;  // f32 [rounds * buckets / 2, D]; of kind lsh
  kernels::PackedWeight packed_qkv_;
  kernels::PackedWeight packed_output_;
};

}  // namespace switchyard
