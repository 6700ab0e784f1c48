// The local half of Infini-attention (Munkhdalai et al., "Leave No Context Behind", 2024): softmax
// attention of a token to those of its own segment and document, mixed with what the memory of
// earlier segments gave by a learned share of each head (kernels/recurrence/memory_gate.hpp).
// Segments begin at the multiples of their length in the whole sequence, and ranks hold whole ones,
// so nothing is exchanged. Where queries turn by position, only those of this half do.
// Legend: T tokens = S sequences of n rows, A heads, d width of a head.
#pragma once

#include <string>
#include <vector>

#include "kernels/attention/attention.hpp"
#include "model/mixers/recurrent_form.hpp"
#include "model/sequence_mixer.hpp"
#include "parallel/parameter.hpp"

namespace switchyard {

class SegmentAttention {
 public:
  // What is attended with: columns of rows [T, ...].
  struct Rows {
    TensorView q, k, v;  // [T, A d]
  };
  // Of all layers that are alike.
  struct Scratch {
    // held: of each sequence, whole segments but for the sequence's end.
    Scratch(Device& device, const RecurrentForm& form, DType compute, std::int64_t num_sequences,
            const std::vector<PositionRange>& held);
    // Where the documents of the sequences begin; empty: documents do not matter.
    void set_documents(const std::vector<PositionRange>& held, kernels::DocumentStarts starts);
    kernels::KeyRanges ranges() const;

    std::int64_t segment;
    kernels::AttentionShape shape;
    Tensor first, end;  // i32 [T]: rows of the sequence that a query sees
    double num_pairs = 0;
    Tensor turned;     // [T, 2 A d]: queries and keys
    Tensor d_turned;   // [T, 2 A d]
    Tensor dv;         // [T, A d]
    Tensor d_local;    // [T, A d]
    Tensor delta;      // f32 [T, A]
    Tensor workspace;  // u8
  };
  // Of generation: the tokens of the segment so far, and the scratch of adding some of them.
  struct ExtendScratch {
    ExtendScratch(Device& device, const RecurrentForm& form, DType compute,
                  std::int64_t num_tokens);

    Tensor first, end;  // i32 [num_tokens]
    Tensor turned;      // [num_tokens, 2 A d]
    Tensor lse;         // f32 [num_tokens, A]
    Tensor workspace;   // u8
  };

  // Registers `prefix`.memory_gate [A].
  SegmentAttention(ParameterStore& store, const std::string& prefix, const RecurrentForm& form);

  // local: [T, A d], lse: f32 [T, A], written.
  void forward(const Rows& rows, const TensorView& local, const TensorView& lse, Scratch& scratch,
               const LayerContext& context) const;
  // out: [T, A d] = what both halves gave.
  void mix(const TensorView& memory, const TensorView& local, const TensorView& out) const;
  // dout: of mix; becomes the gradient of the memory. Keeps the gradients of `rows` in the scratch
  // until add_gradients().
  void backward(const TensorView& dout, const TensorView& memory, const Rows& rows,
                const TensorView& local, const TensorView& lse, Scratch& scratch,
                const LayerContext& context) const;
  void add_gradients(const Rows& to, const Scratch& scratch) const;

  // Generation: rows of n tokens that stand `offset` tokens behind the segment's begin. keys,
  // values: [segment, A d], of which the first `offset` rows are filled; rows join them. local:
  // [n, A d], written.
  void extend(const Rows& rows, std::int64_t offset, const TensorView& keys,
              const TensorView& values, const TensorView& local, const ExtendScratch& scratch,
              const LayerContext& context, const TensorView& rotary_positions) const;

 private:
  TensorView turned_of(const Rows& rows, const Tensor& turned, const LayerContext& context,
                       const TensorView& rotary_positions) const;

  RecurrentForm form_;
  Parameter& gate_;
};

}  // namespace switchyard
