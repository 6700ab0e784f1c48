// Compressive Transformer (Rae et al., "Compressive Transformers for Long-Range Sequence
// Modelling", 2019): what leaves the memory before a segment is pooled, `ratio` rows to one, and
// the last slots of these are seen beside segment and memory, under one softmax:
//   c_g = [x_{rg} ... x_{rg + r - 1}] Wpool^T      [k v]_g = c_g Wkv^T, of the layer's own Wkv
// Groups are counted from the sequence's first token. A query whose segment begins at b sees,
// without position, the last `compressed` groups that end before b - memory, whole ones and those
// of its document. As in the paper its loss teaches Wkv by them, and neither the pooling nor the
// tokens behind it. The pooling learns that attention gives the same over the rows that just left
// the memory as over their groups (attention-reconstruction): the mean over tokens of
//   |attention(q, old rows) - attention(q, their groups)|^2, of all heads
// is added to the loss, q, old rows and Wkv held fixed; the loss that is reported is without it.
// Legend: S sequences of L tokens, T = S L, N whole groups of each, H hidden, A num_heads,
// G num_kv_heads, D head_dim.
#pragma once

#include <string>

#include "kernels/attention/attention.hpp"
#include "kernels/products/linear.hpp"
#include "model/config.hpp"
#include "model/sequence_mixer.hpp"
#include "parallel/parameter.hpp"

namespace switchyard {

class CompressedMemory {
 public:
  // Ranges of rows or of groups by query: i32 [T] each.
  struct Ranges {
    Tensor first, end;
    double num_pairs = 0;
  };
  struct Scratch {
    // Where documents of the next micro-batches begin; empty: documents do not matter.
    void set_documents(kernels::DocumentStarts document_starts);
    MixerConfig mixer;
    std::int64_t num_sequences = 1;
    std::int64_t length = 0;
    Ranges seen;                    // of groups
    Ranges left_rows, left_groups;  // what left the memory at last, as rows and as groups
    Tensor pooled;                  // [S N, H]
    Tensor projected;               // [S N, (A + 2 G) D]
    Tensor out;                     // f32 [T, A D]
    Tensor lse, delta;              // f32 [T, A]
    Tensor workspace;
    // Of the backward pass.
    Tensor dq;           // [T, A D]
    Tensor difference;   // f32 [T, A D]
    Tensor d_pooled;     // [S N, H]
    Tensor d_projected;  // [S N, (A + 2 G) D]
    // Of generation.
    Tensor rows;  // [ratio - 1 + T, H]
  };
  // Of a sequence that is continued.
  struct Cache {
    Tensor projected;  // [groups, (A + 2 G) D]: of all groups so far
    Tensor rows;       // [ratio - 1, H]: of the group that is not whole yet
  };
  // What attention has made of the tokens.
  struct Attended {
    TensorView q, k, v;   // q [T, A D], k, v [T, G D]
    TensorView out, lse;  // [T, A D], f32 [T, A]
  };

  // Registers `prefix`.compression.weight (Wpool) [H, ratio H].
  CompressedMemory(ParameterStore& store, const std::string& prefix, const ModelConfig& model,
                   const MixerConfig& mixer, DType compute);

  Scratch make_scratch(std::int64_t num_sequences, std::int64_t length) const;
  Scratch make_extend_scratch(std::int64_t num_tokens, std::int64_t max_length) const;
  Cache make_cache(std::int64_t max_length) const;
  void pack_weights();
  // x [T, H]; out and lse become those of tokens and groups.
  void forward(const TensorView& x, const kernels::PackedWeight& qkv, const Attended& attended,
               const Scratch& scratch) const;
  // out, lse: of forward; dout [T, A D]. dq: added to. Adds to the gradients of qkv and of the
  // pooling, which is reported ready.
  void backward(const TensorView& x, const kernels::PackedWeight& packed_qkv, Parameter& qkv,
                const Attended& attended, const TensorView& dout, const TensorView& dq,
                const Scratch& scratch, const LayerContext& context) const;
  // The same as forward for tokens behind `num_cached` others.
  void extend(const TensorView& x, const kernels::PackedWeight& qkv, const Attended& attended,
              std::int64_t num_cached, const Cache& cache, const Scratch& scratch) const;

 private:
  struct KeysAndValues {
    TensorView k, v;
  };
  KeysAndValues keys_of(const TensorView& projected) const;
  // Rows of x, `ratio` of them as one.
  TensorView groups_of(const TensorView& rows) const;
  // body(rows of x as groups, first and end group) for all sequences: at once, where their rows are
  // whole groups.
  template <class Body>
  void for_each_sequence(const TensorView& x, const Scratch& scratch, Body&& body) const;
  // Groups of the scratch, as rows and as [q k v].
  void pool(const TensorView& x, const kernels::PackedWeight& qkv, const Scratch& scratch) const;
  std::int64_t num_groups(const Scratch& scratch) const { return scratch.length / mixer_.ratio; }
  kernels::AttentionShape shape(std::int64_t num_sequences, std::int64_t queries,
                                std::int64_t keys) const;
  // Teaches the pooling.
  void reconstruct(const TensorView& x, const kernels::PackedWeight& packed_qkv,
                   const Attended& attended, const Scratch& scratch,
                   const LayerContext& context) const;

  Device& device_;
  ModelConfig model_;
  MixerConfig mixer_;
  DType compute_;
  Parameter& weight_;
  kernels::PackedWeight packed_;
};

}  // namespace switchyard
