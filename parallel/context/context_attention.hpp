// The attention of a micro-batch whose sequences are split over the context axis. One object for
// all layers: it owns the travelling blocks and the scratch, made once, and borrows the mesh's
// groups. Callers bring their local rows (row = s * n + i for sequence s and the i-th of the n
// positions that this rank holds of every sequence) and get their local rows back; who else holds
// what is this class's own business.
//
// Who calls whom, from the layer down:
//   AttentionMixer           a layer: projections, rotation (model/mixers/attention.hpp)
//     ContextAttention       all ranks that share a sequence; which of them share heads
//       HeadExchange         rows with all heads <-> whole sequences with a share of the heads
//       RankGroupAttention   the ranks of one group, all with the same heads: how keys reach them
//         RingAttention      block after block ...
//         GatherAttention    ... or all that is seen at once
//         HierarchicalAttention  ... or all before, for blocks that are chosen (BlockAttention)
//         ExactGatherAttention  ... or that, with the bits of one rank
//           HaloExchange     the rows that a rank reads beside its own
//         PartAttention      one call of the kernel: this rank's queries, the keys at hand
//
// Schemes (docs/parallelism.md): a ring over context_ring or a gather of keys and values, inside an
// exchange of sequence for heads where context_ulysses has ranks. Windows take the gather of their
// halo; where this is little, W - 1 <= positions of a rank, straight between the context ranks, all
// heads staying where they are. On one rank it is one call of the kernel. Deterministic: hops and
// sums have a fixed order.
//
// Exact (ContextConfig::exact): a row's bits are those of one rank with whole sequences. Ranks that
// exchange heads have whole sequences, and a kv head on one rank only; where a group shares the
// sequence beside them, ExactGatherAttention. Windows take the same ways.
//
// Legend: S sequences, n local positions, A num_heads, G num_kv_heads, D head_dim.
#pragma once

#include <optional>
#include <span>

#include "kernels/gradient_sum.hpp"
#include "parallel/context/head_exchange.hpp"
#include "parallel/context/rank_group_attention.hpp"
#include "parallel/group/exchange_progress.hpp"
#include "parallel/mesh.hpp"

namespace switchyard {

class ContextAttention {
 public:
  // patterns: those that layers will ask for. The method and the progress
  // are those of the mesh's configuration ("auto" being the ring here:
  // parallel/context/context_choice.hpp chooses), the latter unless given; all methods are one
  // where it is exact. ConfigError with the legal choices if the heads do not divide over the
  // Ulysses ranks.
  ContextAttention(Device& device, const Mesh& mesh, const AttentionSizes& sizes, DType compute,
                   const SequenceSplit& split, std::span<const kernels::KeyPattern> patterns,
                   std::optional<Progress> progress = {});
  ContextAttention(const ContextAttention&) = delete;
  ContextAttention& operator=(const ContextAttention&) = delete;

  // By sequence, the positions above 0 at which a document begins; empty: documents do not matter.
  // For all layers until the next call.
  void begin(kernels::DocumentStarts document_starts);

  // q [S n, A D], k, v [S n, G D] of the compute type, rows may be strided; of what scores take
  // beside them (bias, keys of distances) and of hierarchical patterns what the sizes say. With
  // keys of distances there are no Ulysses ranks, and keys are gathered. sinks: f32 [A, number of
  // sinks], or empty. Written: out [S n, A D] of the compute type; lse f32 [S n, A], over all keys
  // that a row sees and the sinks.
  void forward(const kernels::KeyPattern& pattern, const TensorView& sinks,
               const AttentionInputs& inputs, const TensorView& out, const TensorView& lse,
               const kernels::Poll& poll);
  // inputs, out, lse: of forward. Gradients are written, those of learned keys added to. dsinks:
  // added to, from this rank's rows.
  void backward(const kernels::KeyPattern& pattern, const TensorView& sinks,
                const kernels::GradientSum& dsinks, const AttentionInputs& inputs,
                const TensorView& out, const TensorView& lse, const TensorView& dout,
                const AttentionRowGradients& gradients, const kernels::Poll& poll);
  // The same of queries, keys and values alone.
  void forward(const kernels::KeyPattern& pattern, const TensorView& sinks, const TensorView& q,
               const TensorView& k, const TensorView& v, const TensorView& out,
               const TensorView& lse, const kernels::Poll& poll) {
    forward(pattern, sinks, AttentionInputs{q, k, v}, out, lse, poll);
  }
  void backward(const kernels::KeyPattern& pattern, const TensorView& sinks,
                const kernels::GradientSum& dsinks, const TensorView& q, const TensorView& k,
                const TensorView& v, const TensorView& out, const TensorView& lse,
                const TensorView& dout, const TensorView& dq, const TensorView& dk,
                const TensorView& dv, const kernels::Poll& poll) {
    backward(pattern, sinks, dsinks, AttentionInputs{q, k, v}, out, lse, dout,
             AttentionRowGradients{dq, dk, dv}, poll);
  }

  // Seconds in which this rank only waited for messages, since the last reset.
  double wait_seconds() const { return progress_.wait_seconds(); }
  void reset_wait_seconds() { progress_.reset_wait_seconds(); }

 private:
  // Buffers of what a rank holds after the exchange: the m positions of its ring rank, with the A'
  // and G' heads that are its share.
  struct Heads {
    Heads(Device& device, Group& ulysses, const AttentionSizes& sizes, DType compute,
          const SequenceSplit& split, int ring_rank, ExchangeProgress& progress);
    AttentionSizes sizes;  // A', G'
    DType gradient_type;   // of dk and dv on the way back: f32 if kv heads are replicated
    HeadExchange exchange;
    Tensor rows;        // [S m, (2 A' + 2 G') D]: q | k | v | dout
    Tensor outputs;     // [S m, A' D]: out, or dq
    Tensor keys;        // [S m, 2 G' D]: dk | dv
    Tensor statistics;  // f32 [S m, 2 A']: lse | delta
    Tensor dbias;       // f32 [S m, A' U]; only with a bias
  };
  void forward_by_heads(const kernels::KeyPattern& pattern, const TensorView& sinks,
                        const AttentionInputs& inputs, const TensorView& out, const TensorView& lse,
                        const kernels::Poll& poll);
  void backward_by_heads(const kernels::KeyPattern& pattern, const AttentionInputs& inputs,
                         const AttentionResults& results, const AttentionRowGradients& gradients,
                         const kernels::Poll& poll);
  std::vector<HeadColumns> columns_of(const TensorView& q, const TensorView& k,
                                      const TensorView& v) const;
  // The heads' share of a matrix with a row for each head.
  TensorView share_of_heads(const TensorView& by_head) const;
  // The pattern with what is known of documents.
  kernels::KeyPattern of_documents(kernels::KeyPattern pattern) const;
  // Whether layers with this pattern leave all heads where they are.
  bool stays_with_rows(const kernels::KeyPattern& pattern) const;

  AttentionSizes sizes_;
  SequenceSplit split_;
  AttentionMethod method_;
  bool documents_;
  bool has_globals_ = false;
  int ulysses_rank_;
  ExchangeProgress progress_;
  std::optional<RankGroupAttention> by_rows_;   // all heads, over context
  std::optional<RankGroupAttention> by_heads_;  // a share of the heads, over context_ring
  std::optional<Heads> heads_;
  Tensor delta_;  // f32 [S n, A]
};

// A mistake with the legal degrees unless the heads divide over `ulysses` ranks: A must be a
// multiple, and G a multiple or a divisor (kv heads are then replicated; not if it is exact, as
// their gradients are sums over ranks).
std::vector<ConfigMistake> head_mistakes(std::int64_t num_heads, std::int64_t num_kv_heads,
                                         std::int64_t ulysses, bool exact = false);

}  // namespace switchyard
