// The way back of tokens that went to their experts once, node by node (token_delivery.hpp), with
// experts.dispatch.return: summed. What the experts return for a token is added up in fp32 before
// it crosses: on the rank of the experts, then on the rank that took the token in for its node. So
// it crosses to its owner once, who adds up what nodes send him.
//   y_t = sum over nodes (sum over ranks of the node (sum over the rows of t there of w_r y_r))
// For that the weights of choices travel with the route to where the rows are (4 bytes a row), and
// their gradients back. The backward pass is the same with gradients: those of y travel as tokens,
// those of x come back as sums in which every weight is 1.
//
// The order of a sum follows from the layout: results are those of rows that come back one by one,
// to rounding. Legend as in token_delivery.hpp.
#pragma once

#include <cstdint>

#include "experts/dispatch/node_map.hpp"
#include "experts/route.hpp"
#include "experts/row_capacity.hpp"
#include "parallel/group/group.hpp"

namespace switchyard {

// Buffers that all layers share. They stay where they are, since a RowCapacity knows them.
struct ReturnScratch {
  // As of DeliveryScratch. num_places: the most of a rank.
  ReturnScratch(Device& device, std::int64_t top_k, int num_ranks, std::int64_t num_places,
                std::int64_t width, std::int64_t num_tokens, std::int64_t most_tokens,
                std::int64_t most_rows, RowCapacity& capacity);
  ReturnScratch(const ReturnScratch&) = delete;
  ReturnScratch& operator=(const ReturnScratch&) = delete;

  // Sums in fp32: of the tokens that reached this rank, over its rows; the same where they were
  // sent on; of the tokens that came for this node, over its ranks; and of this rank's, by node.
  Tensor of_rank, forwarded, of_node, returned;
  Tensor slot_weights;  // f32 [T k, 1]: of the sorted rows, weights or their gradients
  Tensor row_weights;   // f32 growable [R, 1]: of the rows as they arrive
  Tensor dweights;      // f32 growable [tokens that reached this rank, m]
};

class TokenReturn {
 public:
  // placement: over the ranks of the group.
  TokenReturn(Group& group, const Placement& placement, std::int64_t ranks_per_node,
              std::int64_t top_k);

  // Room in a route of num_tokens tokens; most_tokens: of any rank; most_rows: that it can receive.
  void add_to(Route& route, Device& device, std::int64_t num_tokens, std::int64_t most_tokens,
              std::int64_t most_rows) const;
  // After TokenDelivery::route, from what that found: which numbers are added up.
  void route(Route& route) const;
  // weights: f32 [T, k] of the choices, contiguous. Collective.
  void send_weights(const TensorView& weights, Route& route, const ReturnScratch& scratch) const;
  // rows: [R, W] in expert order -> sums [T, W], of one type; by weight, or all alike. Collective;
  // the stream waits.
  enum class Weights : std::uint8_t { of_choices, one };
  void sum(const TensorView& rows, Weights weights, const Route& route,
           const ReturnScratch& scratch, const TensorView& sums) const;
  // Of the sums by weight. dsums: [.., W], their gradients as tokens that have reached this rank.
  // drows [R, W] is written, and dweights f32 [T, k], contiguous. Collective.
  void backward(const TensorView& dsums, const TensorView& rows, const Route& route,
                const ReturnScratch& scratch, const TensorView& drows,
                const TensorView& dweights) const;

 private:
  Group& group_;
  const Placement& placement_;
  std::int64_t top_k_;
  NodeMap nodes_;
};

}  // namespace switchyard
