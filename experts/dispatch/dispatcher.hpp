// Moves rows between the ranks that hold tokens and the ranks that hold experts. The router's
// decision is turned once into a Route, a frozen record; dispatch, combine, both backwards and the
// metrics read it.
//
// A *slot* is a (token, choice) pair, number t k + j. On the token side rows are sorted by (place
// of the expert, slot), so each rank's share is contiguous. On the expert side they are sorted by
// (local place, token identity): an expert sees its rows in the same order whatever the number of
// ranks. Where ranks hold whole sequences, in ascending order, that is (local place, source rank,
// slot): then the rows for each place are a message of their own, which arrives where they belong.
// Where sequences are split over context ranks, the tokens' numbers travel once with the route, and
// the rows of the ranks that share sequences are merged by them after they have arrived. A slot of
// expert -1 is dropped: it has no row (kernels/routing/permute.hpp).
//
// to_experts and from_experts are adjoint to each other (each is the other's inverse permutation),
// and so are the two halves of the layer: forward dispatch = gather, to_experts; its backward =
// from_experts, sum_rows; forward combine = from_experts, combine_rows; its backward =
// combine_rows_backward, to_experts. Each movement starts with one call and ends with another, and
// may travel in pieces.
//
// With max_rows no rank holds more rows at once: if one of the group receives more, all take theirs
// in parts, one after the other (RowCuts). The receiver decides where its rows are cut and tells
// each sender. Tokens that would go node by node travel as rows then, and so they do where a rank
// would have to pass on more than max_rows of them.
//
// With a capacity every place may have room for as many rows of a rank as it may get, so that sizes
// follow from the configuration (a route that is padded). A rank's sorted rows then begin at that
// place's room, and so they travel; those that are none are zeros, which nobody reads. In the
// expert order all rows come first, as they would without padding. Nobody reads counts on the host.
// Legend as in moe_layer.hpp.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "experts/config.hpp"
#include "experts/dispatch/token_delivery.hpp"
#include "experts/dispatch/token_return.hpp"
#include "experts/route.hpp"
#include "experts/row_capacity.hpp"
#include "parallel/mesh.hpp"

namespace switchyard {

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

// The units of exact mode among the rows of experts (row_units.hpp).
struct RowUnits {
  std::int64_t rows = 0;            // tokens of one; 0: without exact sums
  std::int64_t per_rank = 0;        // of each rank's micro-batch
  std::vector<std::int32_t> order;  // as they lie among the rows of an expert: rank * per_rank +
                                    // number on that rank
};

// Room for rows as they travel; empty if they do so unchanged (kernels/rows/wire_rows.hpp).
struct WireRows {
  kernels::WireFormat format = kernels::WireFormat::compute;
  std::int64_t row_bytes = 0;
  TensorView slots;  // u8 [T k, row_bytes]
  TensorView rows;   // u8 [R, row_bytes]
  bool is_used() const { return row_bytes > 0; }
};

// Buffers that all layers share. They stay where they are, since a RowCapacity knows them.
// padded_rows: that each place has room for (ExpertsConfig::padded_rows); 0: rows are not padded.
struct DispatchScratch {
  DispatchScratch(Device& device, const Placement& placement, const ExpertsConfig& config,
                  std::int64_t hidden, DType compute, std::int64_t num_tokens,
                  RowCapacity& capacity, const ContextSharing& sharing = {}, RowUnits units = {},
                  std::int64_t padded_rows = 0);
  DispatchScratch(const DispatchScratch&) = delete;
  DispatchScratch& operator=(const DispatchScratch&) = delete;

  Tensor places;        // i32 [T, k]: of choices, only where experts have replicas
  Tensor counts;        // i32 [places]: rows of this rank's tokens by place, and of each rank's by
  Tensor recv_counts;   // place of this rank: [P, local places], in room for the most of any rank
  Tensor slots;         // [T k, H]: rows on the token side, sorted; more if they are padded
  Tensor arrival;       // growable [R, H]: rows on the expert side as they arrive; spare otherwise
  Tensor rows;          // growable [R, H]: rows in expert order; empty with one rank
  Tensor slot_numbers;  // i32 [T k, 1]: numbers of the tokens of sorted rows, and of the rows as
  Tensor arrival_numbers;  // they arrive, growable i32 [R, 1]; only where sequences are split
  RowUnits units;
  Tensor unit_counts;       // i32 [places, units]: rows of this rank's tokens, and those of each
  Tensor recv_unit_counts;  // rank for this one's places [P, local places, units]; exact mode only
  // Only with max_rows: i32 [P, most parts + 1], where the rows from each rank are cut, and where
  // those for each rank are; and [T k, H] as `slots`, for rows that travel again while gradients
  // do.
  Tensor received_cuts, sent_cuts;
  Tensor sent_again;
  Tensor out_slots, out_rows, back_slots, back_rows;  // of WireRows
  DispatchConfig config;
  // Of tokens on their way to experts, and of all that travels otherwise.
  WireRows wire_out() const { return wire_rows(config.wire, out_slots, out_rows); }
  WireRows wire_back() const { return wire_rows(config.wire_back(), back_slots, back_rows); }
  std::optional<DeliveryScratch> delivery;  // only where tokens travel once
  std::optional<ReturnScratch> back;        // only where what experts return is added up

 private:
  static WireRows wire_rows(kernels::WireFormat format, const Tensor& slots, const Tensor& rows);
  void add_wire(Device& device, DType compute, std::int64_t hidden, std::int64_t num_slots,
                std::int64_t at_once, bool has_rows_out, RowCapacity& capacity);
};

// Rows that the buffers of a rank's token side have room for.
std::int64_t most_sorted_rows(const Placement& placement, std::int64_t num_slots,
                              std::int64_t padded_rows);
// Rows that the buffers of a rank's expert side have room for at most, if it can receive most_rows.
std::int64_t rows_at_once(const ExpertsConfig& config, const Placement& placement,
                          std::int64_t most_rows);

// Rows under way. What was given to the start stays untouched until finish(), which the ranks call
// in the order in which they started.
class MovingRows {
 public:
  // Waits, puts the rows where they belong and returns them. Once.
  TensorView finish();

 private:
  friend class Dispatcher;
  // rows: where they will be; arrival, order: where they arrive, and the place there of each, if
  // that is elsewhere.
  explicit MovingRows(const TensorView& rows, Event event = {}, const TensorView& arrival = {},
                      const TensorView& order = {})
      : rows_(rows), arrival_(arrival), order_(order), event_(std::move(event)) {}

  TensorView rows_, arrival_, order_;
  Event event_;
  std::function<TensorView()> arrive_;  // what gives `arrival`, if more is to be done for it
};

// What the router decided for a micro-batch.
struct RouteRequest {
  TensorView indices;  // i32 [T, k]
  // i32 [T], ascending and different for all tokens of the ranks that share sequences; may be empty
  // unless they are split.
  TensorView token_numbers = {};
  bool by_unit = false;  // with exact sums: whether units are found, too, of a whole micro-batch
  // Of each place, which no rank exceeds; the same on all ranks. 0: rows are not padded.
  std::int64_t padded_rows = 0;
  // i64 [S]; read where experts have replicas, which take so many neighbouring sequences in turn.
  TensorView sequence_ids = {};
  std::int64_t sequences_of_share = 1;
};

class Dispatcher {
 public:
  // Ranks r and s of the group share sequences if (first_rank + r) / num_ranks equals
  // (first_rank + s) / num_ranks. The placement is over the ranks of the group, and outlives the
  // dispatcher. max_rows: that a rank holds at once; 0: all that it receives.
  Dispatcher(Group& group, const Placement& placement, std::int64_t top_k,
             ContextSharing sharing = {}, const DispatchConfig& config = {},
             std::int64_t max_rows = 0);

  // unit_rows: with exact sums, tokens of a unit. padded_rows: that a route may have.
  Route make_route(Device& device, std::int64_t num_tokens, std::int64_t unit_rows = 0,
                   std::int64_t padded_rows = 0) const;
  // Fills the route; collective over the group. Grows what `capacity` knows.
  void route(const RouteRequest& request, Route& route, DispatchScratch& scratch,
             RowCapacity& capacity) const;

  // Buffers of rows on the expert side have R rows, or of a route that is cut those of a part; then
  // a part is worked off before the next one sets out.
  //
  // x: [T, H] -> x_rows [R, H] in expert order. Uses scratch.arrival and scratch.slots, or, if
  // these hold gradients, `again`, scratch.sent_again.
  MovingRows start_dispatch(const TensorView& x, const Route& route, DispatchScratch& scratch,
                            const TensorView& x_rows, Piece piece = {}, bool again = false) const;
  // slots: [T k, H] sorted rows of this rank's tokens; rows, spare: [R, H], distinct. `spare` is
  // only written where sequences are split. Gives the
  // piece's rows in expert order: of `rows`, or with one rank, where nothing needs to move and
  // there are no pieces, `slots` itself.
  MovingRows start_to_experts(const TensorView& slots, const Route& route, const TensorView& spare,
                              const TensorView& rows, Piece piece = {},
                              const WireRows& wire = {}) const;
  // The way back: the piece's part of `rows` is read. Gives all of `slots`, of which the piece's
  // rows are then written, or with one rank `rows` itself.
  MovingRows start_from_experts(const TensorView& rows, const Route& route, const TensorView& spare,
                                const TensorView& slots, Piece piece = {},
                                const WireRows& wire = {}) const;

  // Of routes that travel once: x [T, W] as tokens, not as rows. Gives those that have reached this
  // rank; runs `meanwhile` while they travel. Collective.
  TensorView deliver(const TensorView& x, const Route& route, DispatchScratch& scratch,
                     const std::function<void()>& meanwhile) const;
  // Whether what experts return is added up on its way back, by summed_return().
  bool sums_returns() const { return return_.has_value(); }
  const TokenReturn& summed_return() const { return *return_; }

  const Placement& placement() const { return placement_; }
  // Room for the rows of a layer, if this rank has num_tokens tokens.
  std::int64_t most_rows(std::int64_t num_tokens) const {
    return max_rows_received(placement_, sharing_.most_tokens(num_tokens), top_k_);
  }
  Group& group() const { return group_; }
  std::int64_t num_local_places() const { return placement_.num_places_of(group_.rank()); }
  bool moves_rows() const { return group_.size() > 1; }

 private:
  bool arrives_in_order(std::int64_t padded_rows) const {
    return !moves_rows() || (sharing_.num_ranks == 1 && padded_rows == 0);
  }
  // Of a route: what is merged, and what says where the tokens of rows are, is first by source.
  bool has_arrival_order(std::int64_t padded_rows) const {
    return !arrives_in_order(padded_rows) || (delivery_ && num_local_places() > 1);
  }
  // What of the rows on the token side, and on the experts' side, each rank's messages are.
  RowRanges sent_by_rank(const Route& route, Piece piece) const;
  RowRanges received_by_rank(const Route& route, Piece piece) const;
  // Sends each rank its rows of `own` [places, n], and receives [P, local places, n].
  void exchange_by_place(const TensorView& own, const TensorView& received) const;
  TensorView exchange_counts(DispatchScratch& scratch) const;
  // How the rows of a route travel: once for each token or not, all at once or in parts.
  void decide_way(Route& route, DispatchScratch& scratch, RowCapacity& capacity,
                  bool has_units) const;
  // What rows are sorted by: experts, whose places the placement says, or with replicas the places.
  TensorView sorted_by(const RouteRequest& request, DispatchScratch& scratch) const;
  std::span<const std::int32_t> place_of_sorted() const;
  void find_units(const TensorView& indices, Route& route, DispatchScratch& scratch) const;
  MovingRows start_straight(const TensorView& x, const TensorView& token_of_row,
                            const TensorView& slots, const Route& route, const TensorView& x_rows,
                            Piece piece) const;
  MovingRows start_delivery(const TensorView& x, const Route& route, DispatchScratch& scratch,
                            const TensorView& x_rows, Piece piece) const;
  void read_counts(const DispatchScratch& scratch, const TensorView& recv_counts, Route& route,
                   RowCapacity& capacity) const;
  void assume_counts(Route& route, RowCapacity& capacity) const;
  void fit_to_plan(std::span<std::int64_t> recv_counts, std::int64_t max_rows) const;
  void fill_sums(Route& route) const;
  // Decides whether and where rows are cut. Collective.
  void cut(Route& route, DispatchScratch& scratch, bool has_units) const;
  void count_received(const Route& route, RowCuts& cuts) const;
  void number_within_parts(Route& route) const;
  void tell_cuts(const Route& route, RowCuts& cuts, DispatchScratch& scratch) const;
  std::int64_t assumed_parts(const Route& route, bool has_units) const;
  void assume_sent(const Route& route, RowCuts& cuts) const;
  TensorView exchange_token_numbers(const TensorView& token_numbers, const Route& route,
                                    DispatchScratch& scratch) const;

  Group& group_;
  const Placement& placement_;
  std::int64_t top_k_;
  ContextSharing sharing_;
  std::int64_t max_rows_;
  std::optional<TokenDelivery> delivery_;
  std::optional<TokenReturn> return_;
};

}  // namespace switchyard
