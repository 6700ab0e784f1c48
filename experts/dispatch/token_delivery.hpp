// Ways by which tokens reach the ranks of their experts once, however many of their experts live
// there, where dispatch by all-to-all sends a row for each choice. What arrives are tokens; rows in
// expert order are then gathered from them, so a row has the same bits on every way.
//
// all_gather: every rank sends all its tokens to all others.
// hierarchical: a token goes once to each node that has one of its experts, to the rank there that
//   has the place in its node that the sender has in its own (its *proxy*, modulo the node's
//   ranks); the proxy sends it on to those ranks of the node that have an expert of it. Nodes are
//   hosts, or as many neighbouring ranks of the group as ranks_per_node says.
//
// What a rank must know for that, the tokens of the rows that it receives, travels once with the
// route (4 bytes a row), and for hierarchical 8 bytes a token and node for each 62 ranks of the
// group, which say for which of the node's ranks it is. Legend as in moe_layer.hpp; W: the tokens'
// width as experts see them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "experts/config.hpp"
#include "experts/dispatch/node_map.hpp"
#include "experts/route.hpp"
#include "experts/row_capacity.hpp"
#include "parallel/group/group.hpp"

namespace switchyard {

// Buffers that all layers share. They stay where they are, since a RowCapacity knows them.
struct DeliveryScratch {
  // most_tokens: of any rank; most_rows: that a rank can receive. With config.max_rows a rank
  // passes on no more tokens at once.
  DeliveryScratch(Device& device, const ExpertsConfig& config, int num_ranks, std::int64_t width,
                  DType compute, std::int64_t num_tokens, std::int64_t most_tokens,
                  std::int64_t most_rows, RowCapacity& capacity);
  DeliveryScratch(const DeliveryScratch&) = delete;
  DeliveryScratch& operator=(const DeliveryScratch&) = delete;

  // The tokens that have reached this rank, as they are computed with.
  TensorView tokens(std::int64_t num_tokens) const {
    return (unpacked.empty() ? delivered : unpacked)->slice_rows(0, num_tokens);
  }

  // What tokens are on the way: rows of the compute type, or packed ones as i32 (kernels that move
  // rows know no bytes).
  kernels::WireFormat format = kernels::WireFormat::compute;
  Tensor packed;        // own tokens; empty, as is `unpacked`, if they travel unchanged
  Tensor unpacked;      // [tokens that reach this rank, W]
  Tensor own_numbers;   // i32 [T, 1]: numbers of this rank's tokens
  Tensor slot_numbers;  // i32 [T k, 1]: of its sorted rows
  Tensor row_numbers;   // i32 growable [R, 1]: of the rows as they arrive
  Tensor delivered;     // tokens that reach this rank
  // Only hierarchical: tokens by node, as they leave; those that arrive at this rank for its node,
  // and as they are sent on; and which ranks of a node these are for, i64 [.., words].
  Tensor leaving, at_node, forwarded;
  Tensor leaving_masks, node_masks;
  Tensor sent_sizes, heard_sizes;  // i32 [P, 1]: how many leave for each rank, arrive from each
};

class TokenDelivery {
 public:
  // placement: over the ranks of the group.
  TokenDelivery(Group& group, const Placement& placement, const DispatchConfig& config,
                std::int64_t top_k);

  // Room in a route of num_tokens tokens; most_tokens: of any rank; most_rows: that it can receive.
  void add_to(Route& route, Device& device, std::int64_t num_tokens, std::int64_t most_tokens,
              std::int64_t most_rows) const;
  // Whether ranks pass on the tokens of others.
  bool is_hierarchical() const { return config_.kind == DispatchKind::hierarchical; }
  // Fills route.delivered_row and what the host knows; rows are not numbered within parts yet.
  // Collective. Gives false, on all ranks, if one of them would hold more than max_held tokens for
  // the others of its node; then these tokens have to travel as rows. 0: no bound.
  bool route(Route& route, DeliveryScratch& scratch, RowCapacity& capacity,
             std::int64_t max_held) const;
  // Starts the tokens' way: x [T, W]. Who waits for it then calls `arrive`, which may send them on,
  // and gives the tokens that reached this rank, of which route.delivered_row says the row's.
  Event start(const TensorView& x, const Route& route, DeliveryScratch& scratch) const;
  TensorView arrive(const Route& route, DeliveryScratch& scratch) const;

 private:
  // By receiving rank, the tokens that go there, ascending.
  using TokenLists = std::vector<std::vector<std::int32_t>>;

  void number_own_tokens(Route& route, DeliveryScratch& scratch) const;
  // The numbers of the tokens of this rank's rows, as they arrive: i32 [R, 1].
  TensorView exchange_numbers(const Route& route, DeliveryScratch& scratch) const;
  // Of hierarchical. A plan, which reads nothing, takes choice j of token t for expert t k + j
  // (modulo their number) on every rank.
  TokenLists tokens_by_rank(const Route& route) const;
  // What leaves for each node, and which of its ranks it is for; gives that of this rank's node.
  std::vector<std::int64_t> leave(Route& route, DeliveryScratch& scratch,
                                  const TokenLists& tokens) const;
  // What arrives at this rank for its node: the masks of all of it.
  std::vector<std::int64_t> arrive_at_node(Route& route, DeliveryScratch& scratch,
                                           RowCapacity& capacity,
                                           const std::vector<std::int64_t>& own_masks) const;
  std::vector<std::int32_t> send_on(Route& route, const std::vector<std::int64_t>& masks) const;
  // own: a plan takes those of all ranks to be alike.
  bool all_hold_at_most(std::int64_t max_held, const Route& route, const TokenLists& own) const;
  // What reaches this rank, and where each row's token lies there.
  void receive(Route& route, const TensorView& row_numbers, const TokenLists& own) const;

  Group& group_;
  const Placement& placement_;
  DispatchConfig config_;
  std::int64_t top_k_;
  NodeMap nodes_;
};

}  // namespace switchyard
