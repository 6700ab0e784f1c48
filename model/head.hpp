// The output projection and the loss. Logits exist for one chunk of rows at a time: at most about
// max(min(T H, 2^24), 256 V) numbers, whatever the vocabulary and the length. In training the
// forward and the backward pass of the head are one: each chunk's gradient is used up before the
// next chunk's logits are made. Chunks are whole row blocks of the products, so the cut does not
// change the bits of any row. Legend: T tokens, H hidden, V columns of the head, padding included.
#pragma once

#include <functional>

#include "kernels/products/linear.hpp"
#include "model/config.hpp"
#include "parallel/parameter.hpp"
#include "parallel/pass.hpp"

namespace switchyard {

class Head {
 public:
  struct Scratch {
    // unit_rows: tokens of a unit of exact sums; 0: none.
    Scratch(Device& device, const ModelConfig& model, DType compute, std::int64_t num_tokens,
            std::int64_t unit_rows = 0);
    Tensor logits;   // f32 [chunk, V]
    Tensor dlogits;  // compute type [chunk, V]; none if that is f32: then the logits' place serves
    Tensor losses;   // f32 [T]
  };

  // Registers head.weight [V, H], or uses `embedding` [V, H] if it is not null (a tied head; its
  // gradient adds to the embedding's, which the embedding reports ready).
  // vocab_size_used: columns from there on are padding and take no probability.
  Head(ParameterStore& store, const ModelConfig& model, DType compute, Parameter* embedding,
       std::int64_t vocab_size_used);

  void pack_weights();
  // What is to be said after each token, and how much it counts (kernels/rows/cross_entropy.hpp).
  struct Targets {
    TensorView ids;      // i32 [T]
    TensorView weights;  // f32 [T]; empty: 1 each
  };
  // x: [T, H] in the compute type. Adds the sum of this rank's weighted losses divided by
  // pass.total_weight(), or, exactly, the sum (Pass::exact) to loss, f64 [1]; writes dx [T, H], its
  // gradient, and adds to the weight's gradient.
  void train(const TensorView& x, const Targets& targets, const TensorView& dx, Scratch& scratch,
             const Pass& pass, const TensorView& loss) const;
  // Shown the logits of each chunk, f32 [rows, V], and the token that its first row is of.
  using SeeLogits = std::function<void(std::int64_t begin, const TensorView& logits)>;
  // The loss alone. token_losses: f32 with T elements, written if not empty, times their
  // weights. see: may be empty.
  void evaluate(const TensorView& x, const Targets& targets, const TensorView& token_losses,
                Scratch& scratch, const Pass& pass, const TensorView& loss,
                const SeeLogits& see = {}) const;
  // out: f32 [T, V].
  void logits(const TensorView& x, const TensorView& out) const;

  // Rows of a chunk: a multiple of 256, as many as keep the logits within the bound above; with
  // exact sums whole units, or parts of one that depend on it alone.
  static std::int64_t chunk_rows(std::int64_t num_tokens, std::int64_t hidden, std::int64_t vocab,
                                 std::int64_t unit_rows = 0);

 private:
  void add_loss(const Scratch& scratch, const Pass& pass, const TensorView& loss) const;
  // Of rows [begin, end), whose logits are in scratch; dlogits may be empty.
  void losses_of(const Targets& targets, std::int64_t begin, std::int64_t end, float gradient_scale,
                 const TensorView& dlogits, Scratch& scratch) const;

  DType compute_;
  std::int64_t vocab_size_used_;
  bool tied_;
  Parameter& weight_;
  kernels::PackedWeight packed_;
};

}  // namespace switchyard
