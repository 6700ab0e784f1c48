#include "parallel/context/rank_group_attention.hpp"

#include <algorithm>

#include "kernels/attention/attention_sink.hpp"

namespace switchyard {

namespace {

bool takes_ring(const kernels::KeyPattern& pattern, AttentionMethod method) {
  return pattern.window == 0 && method == AttentionMethod::ring;
}

std::int64_t length_of(const std::vector<std::vector<PositionRange>>& held) {
  std::int64_t length = 0;
  for (const std::vector<PositionRange>& ranges : held)
    if (!ranges.empty()) length = std::max(length, ranges.back().end());
  return length;
}

bool computes_whole_blocks(const Group& group, AttentionMethod method) {
  return group.size() > 1 && method == AttentionMethod::exact;
}

// The most queries and keys a sequence in one call of the kernel.
std::int64_t most_queries(const Group& group, const std::vector<std::vector<PositionRange>>& held,
                          AttentionMethod method) {
  if (computes_whole_blocks(group, method)) return length_of(held);
  return num_positions(held[static_cast<std::size_t>(group.rank())]);
}
std::int64_t most_keys(const Group& group, const std::vector<std::vector<PositionRange>>& held,
                       std::span<const kernels::KeyPattern> patterns, AttentionMethod method) {
  if (computes_whole_blocks(group, method)) return length_of(held);
  std::int64_t most = RingAttention::block_length(held);
  for (const kernels::KeyPattern& pattern : patterns)
    if (!takes_ring(pattern, method) && (group.size() > 1 || pattern.is_hierarchical()))
      most = std::max(most, GatherAttention::max_keys(held, group.rank(), {&pattern, 1}));
  return most;
}

}  // namespace

RankGroupAttention::RankGroupAttention(Device& device, Group& group, const AttentionSizes& sizes,
                                       DType compute,
                                       const std::vector<std::vector<PositionRange>>& held,
                                       std::span<const kernels::KeyPattern> patterns,
                                       AttentionMethod method, ExchangeProgress& progress)
    : own_(held[static_cast<std::size_t>(group.rank())]),
      kernel_(device, sizes, compute, patterns, most_queries(group, held, method),
              most_keys(group, held, patterns, method), length_of(held)) {
  std::vector<kernels::KeyPattern> hierarchical;
  for (const kernels::KeyPattern& pattern : patterns)
    if (pattern.is_hierarchical()) hierarchical.push_back(pattern);
  if (!hierarchical.empty())
    hierarchical_ =
        std::make_unique<HierarchicalAttention>(group, kernel_, held, hierarchical, progress);
  if (group.size() == 1 || hierarchical.size() == patterns.size()) return;
  if (method == AttentionMethod::exact) {
    exact_ = std::make_unique<ExactGatherAttention>(group, kernel_, held, length_of(held), patterns,
                                                    progress);
    return;
  }
  std::vector<kernels::KeyPattern> gathered;
  for (const kernels::KeyPattern& pattern : patterns)
    if (!takes_ring(pattern, method) && !pattern.is_hierarchical()) gathered.push_back(pattern);
  if (gathered.size() + hierarchical.size() < patterns.size())
    ring_ = std::make_unique<RingAttention>(group, kernel_, held, progress);
  if (!gathered.empty())
    gather_ = std::make_unique<GatherAttention>(group, kernel_, held, gathered, progress);
}

AttentionPart RankGroupAttention::own_part(const kernels::KeyPattern& pattern) const {
  return {.queries = own_,
          .keys = own_,
          .key_length = num_positions(own_),
          .pattern = pattern,
          .writes_zeros = true};
}

void RankGroupAttention::forward(const kernels::KeyPattern& pattern, const TensorView& sinks,
                                 const AttentionInputs& inputs, const TensorView& out,
                                 const TensorView& lse, const kernels::Poll& poll) {
  if (pattern.is_hierarchical())
    return hierarchical_->forward(pattern, sinks, inputs, out, lse, poll);
  if (ring_ && (pattern.window == 0 || !gather_))
    return ring_->forward(pattern, sinks, inputs, out, lse, poll);
  if (gather_) return gather_->forward(pattern, sinks, inputs, out, lse, poll);
  if (exact_) return exact_->forward(pattern, sinks, inputs, out, lse, poll);
  kernel_.forward(own_part(pattern), inputs, out, lse, kernels::Merge::replace, poll);
  if (!sinks.empty()) kernels::attention_sink_forward(sinks, kernel_.sizes().head_dim, out, lse);
}

void RankGroupAttention::backward(const kernels::KeyPattern& pattern, const AttentionInputs& inputs,
                                  const AttentionResults& results,
                                  const AttentionRowGradients& gradients,
                                  const kernels::Poll& poll) {
  if (pattern.is_hierarchical())
    return hierarchical_->backward(pattern, inputs, results, gradients, poll);
  if (ring_ && (pattern.window == 0 || !gather_))
    return ring_->backward(pattern, inputs, results, gradients, poll);
  if (gather_) return gather_->backward(pattern, inputs, results, gradients, poll);
  if (exact_) return exact_->backward(pattern, inputs, results, gradients, poll);
  kernel_.backward(own_part(pattern), inputs, results,
                   {.dq = gradients.q,
                    .dk = gradients.k,
                    .dv = gradients.v,
                    .dp = gradients.distance_queries,
                    .dr = gradients.distance_keys,
                    .dbias = gradients.bias},
                   poll);
}

}  // namespace switchyard
