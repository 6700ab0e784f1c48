// Attention of each query to whole blocks of keys that it chose
// (kernels/attention/block_choice.hpp), joined with what is there over other keys:
//   out, lse = softmax over the keys of before and those of the chosen blocks
// Queries that chose the same block are brought together, so that a block is a product with all of
// them (MoBA: Lu et al., "Mixture of Block Attention", 2025). All keys of a chosen block are seen.
// Deterministic: what a thread takes depends on sizes alone. On the CPU only.
// Legend: S sequences, n queries and m keys of each, A heads, G kv heads, D head_dim, B block, t
// choices of a query and kv head.
#pragma once

#include "kernels/attention/attention.hpp"

namespace switchyard::kernels {

struct ChosenBlocks {
  TensorView chosen;  // i32 [S n, G t]: numbers of blocks; -1: none
  std::int64_t block = 0;
  double num_pairs = 0;  // pairs of a query and a key, for one head: what a plan records
};

// shape: lengths, heads, head_dim and scale count. q: [S n, A D], k, v: [S m, G D], of one type,
// rows may be strided. out: f32 [S n, A D], lse: f32 [S n, A]: written, or, merged with before,
// those over other keys, apart from these, which become those over all.
void chosen_attention_forward(const AttentionShape& shape, const TensorView& q, const TensorView& k,
                              const TensorView& v, const ChosenBlocks& blocks,
                              const TensorView& out, const TensorView& lse, Merge merge,
                              const TensorView& workspace, const Poll& poll = {});

// lse, delta: of the whole row. dq, dk, dv: f32, added to.
void chosen_attention_backward(const AttentionShape& shape, const TensorView& q,
                               const TensorView& k, const TensorView& v, const ChosenBlocks& blocks,
                               const TensorView& lse, const TensorView& delta,
                               const TensorView& dout, const TensorView& dq, const TensorView& dk,
                               const TensorView& dv, const TensorView& workspace,
                               const Poll& poll = {});

// u8, for either pass; forward alone needs less.
std::int64_t chosen_attention_workspace_bytes(const AttentionShape& shape, std::int64_t block,
                                              std::int64_t num_choices, DType dtype,
                                              bool has_backward, const PlanTarget& target);

}  // namespace switchyard::kernels
