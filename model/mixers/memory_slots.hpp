// Persistent memory (Sukhbaatar et al., "Augmenting Self-attention with Persistent Memory", 2019):
// keys and values that are learned instead of made of tokens, which every query sees beside its
// tokens, under one softmax. They have no position: where queries turn, slots see them as they were
// before. They are attended to after the tokens and joined by log-sum-exps, so neither the split of
// a sequence nor its documents matter.
// Legend: T tokens, A num_heads, G num_kv_heads, D head_dim, M slots.
#pragma once

#include <string>

#include "kernels/attention/attention.hpp"
#include "model/config.hpp"
#include "model/sequence_mixer.hpp"
#include "parallel/parameter.hpp"

namespace switchyard {

class MemorySlots {
 public:
  struct Scratch {
    Tensor q;           // [T, A D]: not turned; only if queries turn
    Tensor out;         // f32 [T, A D]
    Tensor lse, delta;  // f32 [T, A]
    Tensor first, end;  // i32 [T]: the slots that a query sees, which are all
    Tensor workspace;
    // Of the backward pass.
    Tensor dq;      // [T, A D]
    Tensor dk, dv;  // f32 [M, G D]
  };

  // Registers `prefix`.slots.key.weight and `prefix`.slots.value.weight, [M, G D].
  MemorySlots(ParameterStore& store, const std::string& prefix, const ModelConfig& model,
              std::int64_t num_slots, DType compute);

  Scratch make_scratch(std::int64_t num_tokens, bool training) const;
  void pack_weights();
  // q [T, A D], turned. out [T, A D] and lse f32 [T, A] are those of the tokens, and become those
  // of tokens and slots.
  void forward(const TensorView& q, const TensorView& out, const TensorView& lse,
               const Scratch& scratch, const LayerContext& context) const;
  // out, lse: of forward. dq: gradient of the turned queries, added to. Gradients of the slots are
  // added to, and reported ready.
  void backward(const TensorView& q, const TensorView& out, const TensorView& lse,
                const TensorView& dout, const TensorView& dq, const Scratch& scratch,
                const LayerContext& context) const;

 private:
  // q as the slots see it.
  TensorView unturned(const TensorView& q, const Scratch& scratch,
                      const LayerContext& context) const;
  kernels::AttentionShape shape(std::int64_t num_tokens) const;
  kernels::KeyRanges all_slots(const Scratch& scratch, std::int64_t num_tokens) const;

  Device& device_;
  ModelConfig model_;
  std::int64_t num_slots_;
  DType compute_;
  Parameter& keys_;
  Parameter& values_;
  Tensor packed_keys_, packed_values_;  // [M, G D]
};

}  // namespace switchyard
