// Moves rows between the ranks that hold tokens and the ranks that hold experts. The router's
// decision is turned once into a Route, a frozen record; dispatch, combine, both backwards and the
// metrics read it.
//
// A *slot* is a (token, choice) pair, number t k + j. On the token side rows are sorted by (expert,
// slot), so each rank's share is contiguous. On the expert side they are sorted by (local expert,
// token identity): an expert sees its rows in the same order whatever the number of ranks. Where
// ranks hold whole sequences, in ascending order, that is (local expert, source rank, slot). Where
// sequences are split over context ranks, the tokens' numbers travel once with the route, and the
// rows of the ranks that share sequences are merged by them. A slot of expert -1 is dropped: it has
// no row (kernels/permute.hpp).
//
// to_experts and from_experts are adjoint to each other (each is the other's inverse permutation),
// and so are the two halves of the layer: forward dispatch = gather, to_experts; its backward =
// from_experts, sum_rows; forward combine = from_experts, combine_rows; its backward =
// combine_rows_backward, to_experts.
// Legend as in moe_layer.hpp.
#pragma once

#include <span>
#include <vector>

#include "experts/config.hpp"
#include "experts/placement.hpp"
#include "experts/row_capacity.hpp"
#include "parallel/mesh.hpp"

namespace switchyard {

// What of a route lies on the host: the sizes of its exchanges, and what reports tell of it.
struct RouteCounts {
  std::int64_t num_tokens = 0;
  std::int64_t num_dropped = 0;              // slots of this rank's tokens without a row
  std::int64_t num_sent = 0;                 // slots with a row: rows on the token side
  std::int64_t num_rows = 0;                 // R: rows this rank's experts receive
  std::vector<std::int64_t> expert_counts;   // [E]: rows of this rank's tokens by expert
  std::vector<std::int64_t> send_rows;       // [P]
  std::vector<std::int64_t> recv_rows;       // [P]
  std::vector<std::int64_t> expert_offsets;  // [local experts + 1] in the expert order
};

struct Route : RouteCounts {
  Tensor row_of_slot;     // i32 [T, k]: a slot's place among this rank's sorted rows, or -1
  Tensor token_of_row;    // i32 [T k], of which num_sent are in use
  Tensor arrival_of_row;  // i32 growable [R]: where a row of the expert order arrived; empty when
                          // rows arrive in expert order (one rank, or at most one local expert
                          // and whole sequences)
};

// Which ranks of an expert group hold parts of the same sequences.
struct ContextSharing {
  int num_ranks = 1;   // of the context axis
  int first_rank = 0;  // rank of the world that is the group's first; the others follow in order
  bool is_uneven = false;  // whether ranks may hold different numbers of tokens

  // The most tokens of any rank, if this one has num_tokens: parts of a sequence differ by three
  // tokens at most, and none is empty.
  std::int64_t most_tokens(std::int64_t num_tokens) const {
    return is_uneven ? 4 * num_tokens : num_tokens;
  }
};
ContextSharing sharing_of(const Mesh& mesh);

// Buffers that all layers share. They stay where they are, since a RowCapacity knows them.
struct DispatchScratch {
  DispatchScratch(Device& device, const ExpertPlacement& placement, const ExpertsConfig& config,
                  std::int64_t hidden, DType compute, std::int64_t num_tokens,
                  RowCapacity& capacity, const ContextSharing& sharing = {});
  DispatchScratch(const DispatchScratch&) = delete;
  DispatchScratch& operator=(const DispatchScratch&) = delete;

  Tensor counts;        // i32 [E]: rows of this rank's tokens by expert, and of each rank's by
  Tensor recv_counts;   // expert of this rank: [P, local experts], in room for the most of any rank
  Tensor slots;         // [T k, H]: rows on the token side, sorted
  Tensor arrival;       // growable [R, H]: rows on the expert side as they arrive; spare otherwise
  Tensor rows;          // growable [R, H]: rows in expert order; empty with one rank
  Tensor slot_numbers;  // i32 [T k, 1]: numbers of the tokens of sorted rows, and of the rows as
  Tensor arrival_numbers;  // they arrive, growable i32 [R, 1]; only where sequences are split
};

class Dispatcher {
 public:
  // Ranks r and s of the group share sequences if (first_rank + r) / num_ranks equals
  // (first_rank + s) / num_ranks.
  Dispatcher(Group& group, const ExpertsConfig& config, ContextSharing sharing = {});

  Route make_route(Device& device, std::int64_t num_tokens) const;
  // indices: i32 [T, k]. token_numbers: i32 [T], ascending and different for all tokens of the
  // ranks that share sequences; may be empty unless they are split. Fills the route; collective
  // over the group. Grows what `capacity` knows.
  void route(const TensorView& indices, const TensorView& token_numbers, Route& route,
             DispatchScratch& scratch, RowCapacity& capacity) const;

  // x: [T, H] -> x_rows [R, H] in expert order. Uses scratch.slots and scratch.arrival.
  void dispatch(const TensorView& x, const Route& route, DispatchScratch& scratch,
                const TensorView& x_rows) const;
  // slots: [T k, H] sorted rows of this rank's tokens; rows, spare: [R, H], distinct. Returns the
  // rows in expert order: `rows`, or with one rank, where nothing needs to move, `slots` itself.
  TensorView to_experts(const TensorView& slots, const Route& route, const TensorView& spare,
                        const TensorView& rows) const;
  // The way back: `rows` is read. Returns `slots`, or with one rank `rows` itself.
  TensorView from_experts(const TensorView& rows, const Route& route, const TensorView& spare,
                          const TensorView& slots) const;

  const ExpertPlacement& placement() const { return placement_; }
  // Room for the rows of a layer, if this rank has num_tokens tokens.
  std::int64_t most_rows(std::int64_t num_tokens) const {
    return max_rows_received(placement_, sharing_.most_tokens(num_tokens), top_k_);
  }
  std::int64_t num_local_experts() const { return placement_.num_local_experts(group_.rank()); }
  bool moves_rows() const { return group_.size() > 1; }

 private:
  bool arrives_in_order() const {
    return !moves_rows() || (num_local_experts() <= 1 && sharing_.num_ranks == 1);
  }
  TensorView exchange_counts(DispatchScratch& scratch) const;
  std::vector<std::int64_t> read_counts(const DispatchScratch& scratch,
                                        const TensorView& recv_counts, Route& route,
                                        RowCapacity& capacity) const;
  std::vector<std::int64_t> assume_counts(Route& route, RowCapacity& capacity) const;
  void fit_to_plan(std::span<std::int64_t> recv_counts, std::int64_t max_rows) const;
  std::int64_t rows_to(int rank, std::span<const std::int64_t> expert_counts) const;
  void fill_ranges(std::span<const std::int64_t> recv_counts, Route& route) const;
  TensorView exchange_token_numbers(const TensorView& token_numbers, const Route& route,
                                    DispatchScratch& scratch) const;

  Group& group_;
  ExpertPlacement placement_;
  std::int64_t top_k_;
  ContextSharing sharing_;
};

}  // namespace switchyard
