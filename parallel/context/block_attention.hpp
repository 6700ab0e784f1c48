// What hierarchical attention adds to its window: whole blocks before it, by summaries or by the
// choice of each query (kernels/attention/block_choice.hpp). All keys are at hand; who brings them
// is the caller's business. One softmax covers the window, the summaries and the chosen blocks:
// each is a call of the kernel, joined by log-sum-exps. Owns its scratch, made once.
// Legend: S sequences, n queries and m keys of each, A heads, G kv heads, D head_dim, t chosen.
#pragma once

#include <span>

#include "kernels/attention/block_choice.hpp"
#include "kernels/attention/chosen_attention.hpp"
#include "parallel/context/part_attention.hpp"

namespace switchyard {

class BlockAttention {
 public:
  // For at most so many queries and keys a sequence. for_training: whether backward() is called.
  BlockAttention(Device& device, const AttentionSizes& sizes, DType compute,
                 std::span<const kernels::KeyPattern> patterns, std::int64_t max_queries,
                 std::int64_t max_keys, bool for_training);

  // inputs: k, v [S m, G D], at the positions 0 ... m - 1 of each sequence; chosen: written. sums:
  // f32 [S n, A D], lse: over the window; they become those over all. Without a window they are
  // written; lse means nothing where no query has a whole block.
  void forward(const kernels::BlockQueries& asking, kernels::DocumentStarts document_starts,
               const AttentionInputs& inputs, const TensorView& sums, const TensorView& lse,
               const kernels::Poll& poll);
  // dq, dk, dv: f32, added to.
  void backward(const kernels::BlockQueries& asking, kernels::DocumentStarts document_starts,
                const AttentionInputs& inputs, const AttentionResults& results,
                const AttentionRowGradients& sums, const kernels::Poll& poll);

 private:
  // Summaries of keys and values, in the compute type.
  struct Summaries {
    TensorView keys, values;
  };
  void choose(const kernels::BlockQueries& asking, const AttentionInputs& inputs) const;
  Summaries summarize(const kernels::BlockQueries& asking, const AttentionInputs& inputs) const;
  void backward_of_summaries(const kernels::BlockQueries& asking, const AttentionInputs& inputs,
                             const AttentionResults& results, const AttentionRowGradients& sums,
                             double num_pairs, const kernels::Poll& poll) const;
  kernels::KeyRanges ranges_of_summaries(const kernels::BlockQueries& asking,
                                         double num_pairs) const;
  kernels::AttentionShape shape_of(std::int64_t num_sequences, std::int64_t num_queries,
                                   std::int64_t num_keys) const;
  // Of the choices that forward() made.
  kernels::ChosenBlocks chosen(const kernels::BlockQueries& asking, const AttentionInputs& inputs,
                               double num_choices) const;

  AttentionSizes sizes_;
  DType compute_;
  Tensor mean_keys_;         // f32 [S blocks, G D]: by which blocks are chosen
  Tensor summaries_;         // f32 [S summaries, 2 G D]: of keys | of values
  Tensor packed_summaries_;  // the same in the compute type, if that is another
  Tensor d_summaries_;       // f32, like summaries_
  Tensor first_, end_;       // i32 [S n]: summaries that a query sees
  Tensor workspace_;
};

}  // namespace switchyard
