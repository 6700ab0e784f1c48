// Attention of sequences that are split over the ranks of one group, each with the same heads:
// chooses how keys and values reach them. The kernel alone where the group has one rank, else a
// ring, or a gather. Windows always take the gather: it is their halo. Hierarchical patterns have a
// gather of their own, also on one rank. `exact` is a gather, too, with the bits of one rank. (Not
// attention with grouped queries, which is every layer's here.)
#pragma once

#include <memory>
#include <span>

#include "parallel/context/exact_gather_attention.hpp"
#include "parallel/context/gather_attention.hpp"
#include "parallel/context/hierarchical_attention.hpp"
#include "parallel/context/part_attention.hpp"
#include "parallel/context/ring_attention.hpp"

namespace switchyard {

enum class AttentionMethod : std::uint8_t { ring, all_gather, exact };

class RankGroupAttention {
 public:
  // held: the segments of each rank of the group. patterns: those that will be asked for.
  // Borrows group and progress.
  RankGroupAttention(Device& device, Group& group, const AttentionSizes& sizes, DType compute,
                     const std::vector<std::vector<PositionRange>>& held,
                     std::span<const kernels::KeyPattern> patterns, AttentionMethod method,
                     ExchangeProgress& progress);

  void set_documents(kernels::DocumentStarts document_starts) {
    kernel_.set_documents(document_starts);
  }

  // As RingAttention.
  void forward(const kernels::KeyPattern& pattern, const TensorView& sinks,
               const AttentionInputs& inputs, const TensorView& out, const TensorView& lse,
               const kernels::Poll& poll);
  void backward(const kernels::KeyPattern& pattern, const AttentionInputs& inputs,
                const AttentionResults& results, const AttentionRowGradients& gradients,
                const kernels::Poll& poll);

 private:
  AttentionPart own_part(const kernels::KeyPattern& pattern) const;

  std::vector<PositionRange> own_;
  PartAttention kernel_;
  std::unique_ptr<HierarchicalAttention> hierarchical_;
  std::unique_ptr<RingAttention> ring_;          // of full attention, unless it is gathered
  std::unique_ptr<GatherAttention> gather_;      // of the others
  std::unique_ptr<ExactGatherAttention> exact_;  // of all; none of them on one rank
};

}  // namespace switchyard
