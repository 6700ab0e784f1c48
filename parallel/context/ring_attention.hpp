// Ring attention: keys and values travel around the ranks that hold a sequence, and every rank
// attends to each block as it passes (Liu et al., "Ring Attention", 2023; the gradients of keys and
// values follow one step behind: ring-flash-attention). Only the kv heads travel.
//
// R ranks, n positions a rank (at most), d = num_kv_heads * head_dim, b bytes of an element. A rank
// sends 2 (R - 1) S n d b bytes forward, and 2 (R - 1) S n d (b + 4) backward. It holds two blocks
// of keys and values, and four of their gradients in fp32 (one stays at home), whatever R: while
// one is computed the next is in flight. docs/parallelism.md has a table for 3 ranks. Outputs merge
// in fp32 and are rounded once. Every sum has a fixed order.
#pragma once

#include <array>

#include "parallel/context/part_attention.hpp"
#include "parallel/context/sequence_split.hpp"
#include "parallel/group/exchange_progress.hpp"
#include "parallel/group/group.hpp"

namespace switchyard {

class RingAttention {
 public:
  // held: the segments of each rank of the group. Borrows group, kernel and progress.
  RingAttention(Group& group, PartAttention& kernel, std::vector<std::vector<PositionRange>> held,
                ExchangeProgress& progress);

  // Rows a sequence in a block: the most positions of any rank.
  static std::int64_t block_length(std::span<const std::vector<PositionRange>> held);

  // sinks: f32 [A, number of sinks] or empty. out: of the compute type or f32; lse: f32 [S n, A];
  // both written, and final.
  void forward(const kernels::KeyPattern& pattern, const TensorView& sinks,
               const AttentionInputs& inputs, const TensorView& out, const TensorView& lse,
               const kernels::Poll& poll);
  // dq, dk, dv: of the compute type or f32; written.
  void backward(const kernels::KeyPattern& pattern, const AttentionInputs& inputs,
                const AttentionResults& results, const AttentionRowGradients& gradients,
                const kernels::Poll& poll);

 private:
  // How many of n own queries the backward pass computes first. Of the pairs that they see, the
  // first have the share b / (b + 4), as keys have of the bytes of keys and gradients.
  static std::int64_t num_first_queries(std::int64_t num_local, std::int64_t element_bytes);
  int next() const { return (group_.rank() + 1) % group_.size(); }
  int previous() const { return (group_.rank() + group_.size() - 1) % group_.size(); }
  // The ring rank whose keys this rank holds at a step.
  int source(int step) const { return (group_.rank() + group_.size() - step) % group_.size(); }
  AttentionPart part_of(int step, const kernels::KeyPattern& pattern) const;
  // The gradients of the own block by the queries in rows begin ... end - 1.
  void differentiate_own(const kernels::KeyPattern& pattern, std::int64_t begin, std::int64_t end,
                         const AttentionInputs& inputs, const AttentionResults& results,
                         const TensorView& dbias, Event& in_flight, const kernels::Poll& poll);
  AttentionInputs inputs_with(const AttentionInputs& inputs, const TensorView& block) const;
  // Own keys and values as a block.
  void pack(const AttentionInputs& inputs, const TensorView& block) const;
  // Their gradients: what came home in a block, and what stayed here.
  void unpack(const TensorView& block, const AttentionRowGradients& gradients) const;

  Group& group_;
  PartAttention& kernel_;
  ExchangeProgress& progress_;
  std::vector<std::vector<PositionRange>> held_;  // by rank
  std::int64_t num_local_;                        // positions of this rank
  std::int64_t block_length_;        // rows a sequence in a block: the most of any rank
  Tensor sums_;                      // f32 [S n, A D]: of the outputs, or of dq
  std::array<Tensor, 2> blocks_;     // [S block_length, 2 G D]: keys | values
  std::array<Tensor, 3> gradients_;  // f32, likewise
  Tensor own_gradients_;             // f32 [S n, 2 G D]: what stays here
};

}  // namespace switchyard
