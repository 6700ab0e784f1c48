// Attention whose bits are those of one rank with the whole sequence, whoever shares it
// (numerics.exact). Every result has one owner, and nothing is summed across ranks:
//   out, lse, dq   the rank of the query, to which keys and values are brought
//   dk, dv         the rank of the key, to which the queries that see it are brought, with dout,
//   lse
//                  and delta
// The kernel cuts blocks at fixed positions of the whole sequence and computes those in which the
// rank has rows (AttentionShape::held_queries and held_keys).
//
// The price, beside GatherAttention: scores and their gradients are computed once for queries and
// once for keys; blocks on the edge of a rank's segments on both sides. No fp32 gradients travel,
// but queries do. A heads, G kv heads, D head_dim, b bytes of an element, m rows that other ranks
// need of this one: 2 m S G D b forward, and backward that again and m' S A (2 D b + 8), for the m'
// rows of queries that other ranks need.
#pragma once

#include <map>

#include "parallel/context/halo_exchange.hpp"
#include "parallel/context/part_attention.hpp"

namespace switchyard {

class ExactGatherAttention {
 public:
  // held: the segments of each rank of the group, which make up a sequence of `length`.
  // patterns: those that will be asked for. Borrows group, kernel and progress.
  ExactGatherAttention(Group& group, PartAttention& kernel,
                       std::span<const std::vector<PositionRange>> held, std::int64_t length,
                       std::span<const kernels::KeyPattern> patterns, ExchangeProgress& progress);

  // As RingAttention.
  void forward(const kernels::KeyPattern& pattern, const TensorView& sinks,
               const AttentionInputs& inputs, const TensorView& out, const TensorView& lse,
               const kernels::Poll& poll);
  void backward(const kernels::KeyPattern& pattern, const AttentionInputs& inputs,
                const AttentionResults& results, const AttentionRowGradients& gradients,
                const kernels::Poll& poll);

 private:
  struct Exchanges {
    HaloExchange keys;     // that the own queries see
    HaloExchange queries;  // that see the own keys
  };

  // k | v of this rank and of the others as the rows of the exchange's positions.
  AttentionInputs with_keys(const Exchanges& exchanges, const AttentionInputs& inputs);
  void differentiate_queries(const Exchanges& exchanges, const kernels::KeyPattern& pattern,
                             const AttentionInputs& inputs, const AttentionResults& results,
                             const AttentionRowGradients& gradients, const kernels::Poll& poll);
  void differentiate_keys(const Exchanges& exchanges, const kernels::KeyPattern& pattern,
                          const AttentionInputs& inputs, const AttentionResults& results,
                          const AttentionRowGradients& gradients, const kernels::Poll& poll);

  PartAttention& kernel_;
  std::vector<PositionRange> own_;
  std::map<kernels::KeyPattern, Exchanges> exchanges_;
  Tensor keys_;        // [S keys, 2 G D]: keys | values
  Tensor queries_;     // [S queries, 2 A D]: queries | dout
  Tensor statistics_;  // f32 [S queries, 2 A]: lse | delta
  HaloMessages messages_;
};

}  // namespace switchyard
