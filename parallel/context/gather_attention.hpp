// Attention over keys and values that are brought together first (halo_exchange.hpp): every rank
// gets exactly the rows that some query of its own can see, computes with one call of the kernel,
// and sends the gradients back the same way; their owner adds them to its own in fp32.
// Under a window of W positions these rows are its own and at most W - 1 before each of its
// segments (a halo); without a window it is the plain all-gather, whose memory grows with the whole
// sequence.
//
// d = num_kv_heads * head_dim, b bytes of an element, m rows that other ranks need of this one (at
// most 2 (W - 1) under a window, at most (P - 1) n without): a rank sends 2 m S d b bytes forward,
// and in the backward pass the same again and 2 m' S d 4 for the m' rows that it needed of others.
#pragma once

#include <map>

#include "parallel/context/halo_exchange.hpp"
#include "parallel/context/part_attention.hpp"

namespace switchyard {

class GatherAttention {
 public:
  // held: the segments of each rank of the group. patterns: those that will be asked for.
  // Borrows group, kernel and progress.
  GatherAttention(Group& group, PartAttention& kernel,
                  std::span<const std::vector<PositionRange>> held,
                  std::span<const kernels::KeyPattern> patterns, ExchangeProgress& progress);

  // As RingAttention.
  void forward(const kernels::KeyPattern& pattern, const TensorView& sinks,
               const AttentionInputs& inputs, const TensorView& out, const TensorView& lse,
               const kernels::Poll& poll);
  void backward(const kernels::KeyPattern& pattern, const AttentionInputs& inputs,
                const AttentionResults& results, const AttentionRowGradients& gradients,
                const kernels::Poll& poll);

  // The most keys a sequence that a rank of `held` meets under any of the patterns.
  static std::int64_t max_keys(std::span<const std::vector<PositionRange>> held, int rank,
                               std::span<const kernels::KeyPattern> patterns);

 private:
  AttentionPart part_of(const HaloExchange& exchange, const kernels::KeyPattern& pattern) const;
  // The inputs with the keys and values of the exchange's positions.
  AttentionInputs gather(const HaloExchange& exchange, const AttentionInputs& inputs);

  PartAttention& kernel_;
  std::vector<PositionRange> own_;
  std::map<kernels::KeyPattern, HaloExchange> exchanges_;
  Tensor keys_;           // [S keys, 2 G D]: keys | values
  Tensor key_gradients_;  // f32, likewise
  HaloMessages messages_;
};

}  // namespace switchyard
