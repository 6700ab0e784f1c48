// Hierarchical attention of sequences that are split over the ranks of one group: a window, and
// whole blocks before it (block_attention.hpp). Every rank gets all rows up to its own last one
// (halo_exchange.hpp), as a gather of full attention does, makes summaries and choices of its own
// queries by itself, and sends the gradients back the same way. So no result depends on who holds
// which positions, but for the order of sums. On one rank nothing is exchanged.
#pragma once

#include <map>

#include "parallel/context/block_attention.hpp"
#include "parallel/context/class_attention.hpp"
#include "parallel/context/halo_exchange.hpp"
#include "parallel/context/part_attention.hpp"

namespace switchyard {

class HierarchicalAttention {
 public:
  // As GatherAttention; patterns are hierarchical.
  HierarchicalAttention(Group& group, PartAttention& kernel,
                        std::span<const std::vector<PositionRange>> held,
                        std::span<const kernels::KeyPattern> patterns, ExchangeProgress& progress);

  // As RingAttention. inputs.chosen is written by forward and read by backward.
  void forward(const kernels::KeyPattern& pattern, const TensorView& sinks,
               const AttentionInputs& inputs, const TensorView& out, const TensorView& lse,
               const kernels::Poll& poll);
  void backward(const kernels::KeyPattern& pattern, const AttentionInputs& inputs,
                const AttentionResults& results, const AttentionRowGradients& gradients,
                const kernels::Poll& poll);

 private:
  AttentionPart window_of(const kernels::KeyPattern& pattern) const;
  kernels::BlockQueries asking(const kernels::KeyPattern& pattern) const;
  // The inputs with the keys and values of all positions up to this rank's last one.
  AttentionInputs gather(const AttentionInputs& inputs);

  PartAttention& kernel_;
  std::vector<PositionRange> own_;
  HaloExchange exchange_;
  std::optional<BlockAttention> blocks_;
  std::optional<ClassAttention> classes_;
  Tensor keys_;           // [S keys, 2 G D]: keys | values
  Tensor key_gradients_;  // f32, likewise
  Tensor sums_;           // f32 [S n, A D]: outputs, or gradients of queries
  HaloMessages messages_;
};

}  // namespace switchyard
