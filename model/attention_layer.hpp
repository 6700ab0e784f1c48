// Causal self-attention with grouped queries and rotary positions, over all tokens before or a
// window of them, with learned sinks or without:
//   [q k v] = x Wqkv^T      q, k turned by position      y = attention(q, k, v) Wout^T
// Where sequences are split over context ranks, the ranks exchange what attention needs
// (parallel/context/context_attention.hpp); all else goes by rows.
// Rows of Wqkv are the query heads, then the key heads, then the value heads. The layer holds its
// weights; what the backward pass reads is in Saved and in Derived, which can be computed again
// from x; what layers share is in Scratch, and in generation keys and values of the tokens so far
// are in a Cache. Legend: T tokens = S sequences of L, H hidden, D head_dim, A num_heads, G
// num_kv_heads.
#pragma once

#include <string>

#include "kernels/attention.hpp"
#include "kernels/linear.hpp"
#include "kernels/rope.hpp"
#include "model/config.hpp"
#include "parallel/context/context_attention.hpp"
#include "parallel/parameter.hpp"
#include "parallel/pass.hpp"
#include "tensor/record_tensor.hpp"

namespace switchyard {

class AttentionLayer {
 public:
  struct Saved {
    Tensor out;  // [T, A D]: of the attention, before Wout
    Tensor lse;  // f32 [T, A]

    void for_each_tensor(const RecordVisitor& visit);
  };
  struct Derived {
    Tensor qkv;  // [T, (A + 2 G) D], q and k after the rotation

    void for_each_tensor(const RecordVisitor& visit);
  };
  struct Scratch {
    // split: of each sequence over the mesh's context axis.
    Scratch(Device& device, const Mesh& mesh, const ModelConfig& model, DType compute,
            std::int64_t num_sequences, const SequenceSplit& split);
    kernels::RopeTable rope;  // all positions of a sequence
    ContextAttention attention;
    Tensor dqkv;  // [T, (A + 2 G) D]
    Tensor dout;  // [T, A D]
  };
  // Keys (turned) and values of one sequence, in one layer: of all tokens, or of those that a
  // window may still show, so that its size is bounded however long the sequence becomes.
  class Cache {
   public:
    // window: of the layer, 0 for none. At most max_new_tokens are added at a time.
    Cache(Device& device, const ModelConfig& model, std::int64_t window, DType compute,
          std::int64_t max_length, std::int64_t max_new_tokens);
    // Room for `num_tokens` behind the `num_cached` tokens of the sequence: what no later token
    // sees makes way.
    void make_room(std::int64_t num_cached, std::int64_t num_tokens);
    std::int64_t first() const { return first_; }  // position of the token in row 0
    void clear() { first_ = 0; }                   // to begin another sequence
    const Tensor& keys() const { return keys_; }
    const Tensor& values() const { return values_; }

   private:
    std::int64_t window_;
    std::int64_t first_ = 0;
    Tensor keys_;    // [rows, G D]
    Tensor values_;  // [rows, G D]
  };
  // Buffers for `num_tokens` new tokens of a sequence of at most max_length.
  struct ExtendScratch {
    ExtendScratch(Device& device, const ModelConfig& model, DType compute, std::int64_t num_tokens,
                  std::int64_t max_length);
    Tensor qkv;                   // [num_tokens, (A + 2 G) D]
    Tensor out;                   // [num_tokens, A D]
    Tensor lse;                   // f32 [num_tokens, A]
    Tensor first_keys, end_keys;  // i32 [num_tokens]
    Tensor workspace;             // of the attention kernel
  };

  // Registers `prefix`.qkv.weight [(A + 2 G) D, H], `prefix`.output.weight [H, A D] and, if the
  // layer has sinks, `prefix`.sinks [A, number of sinks].
  AttentionLayer(ParameterStore& store, const std::string& prefix, const ModelConfig& model,
                 const AttentionConfig& attention, DType compute);

  Saved make_saved(std::int64_t num_tokens) const;
  Derived make_derived(std::int64_t num_tokens) const;
  void pack_weights();

  // x, y: [T, H] in the compute type. y is written.
  void forward(const TensorView& x, const TensorView& y, Saved& saved, Derived& derived,
               Scratch& scratch, const Pass& pass) const;
  // Fills `derived` and y as the forward pass did, from its x and `saved`, without the attention.
  void rebuild(const TensorView& x, const TensorView& y, const Saved& saved, Derived& derived,
               Scratch& scratch, const Pass& pass) const;
  // dy: gradient of y; dx: written. Gradients of weights are added to, and reported ready.
  void backward(const TensorView& dy, const TensorView& x, const TensorView& dx, const Saved& saved,
                const Derived& derived, Scratch& scratch, const Pass& pass) const;
  // Generation: x, y [num_tokens, H] for the tokens that follow the `num_cached` tokens of the
  // sequence, whose keys and values are in the cache, and are added to it.
  void extend(const TensorView& x, const TensorView& y, std::int64_t num_cached, Cache& cache,
              const kernels::RopeTable& rope, ExtendScratch& scratch, const Pass& pass) const;

 private:
  // Columns of a [T, (A + 2 G) D] buffer.
  struct Heads {
    TensorView q, k, v, rotated;  // rotated: q and k
  };
  Heads heads_of(const TensorView& qkv) const;
  TensorView sinks() const { return sinks_ == nullptr ? TensorView{} : sinks_->value(); }
  void project(const TensorView& x, Derived& derived, const Scratch& scratch,
               const Pass& pass) const;

  Device& device_;
  ModelConfig model_;
  std::int64_t window_;  // 0: none
  DType compute_;
  Parameter& qkv_;
  Parameter& output_;
  Parameter* sinks_;  // null: none
  kernels::PackedWeight packed_qkv_;
  kernels::PackedWeight packed_output_;
};

// The rotary frequencies that the configuration asks for. ConfigError for an unknown scaling.
kernels::RopeSpec rope_spec(const ModelConfig& model);

}  // namespace switchyard
