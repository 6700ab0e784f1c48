// The router's decision as it is carried out: a frozen record, made once by the dispatcher.
// Dispatch, combine, both backwards and the metrics read it. Legend as in moe_layer.hpp; a *place*
// is where an expert lives (parallel/placement.hpp).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "parallel/placement.hpp"
#include "tensor/record_tensor.hpp"

namespace switchyard {

// Where the rows that ranks receive are cut, if a rank would hold too many at once
// (experts.max_rows): every rank of the group takes its rows in the same number of parts, one after
// the other. An expert's rows are cut where its weight's gradient may be, so no bit depends on it.
struct RowCuts {
  // [parts + 1], from 0 to R: where the parts of this rank's rows begin in the expert order.
  std::vector<std::int64_t> rows;
  // [P, parts + 1] each: the same among the sorted rows of this rank's tokens for each rank, from 0
  // on, and among the rows from each rank.
  std::vector<std::int64_t> sent, received;

  bool empty() const { return rows.empty(); }
  int num_parts() const { return static_cast<int>(rows.size()) - 1; }
};

// Rows by rank, as Group::start_all_to_all_v takes them: a run for each rank or, with `ends`,
// several.
struct RowRanges {
  std::vector<std::int64_t> first;
  std::vector<std::int64_t> count;
  std::vector<std::size_t> ends = {};
};

// Of tokens that travel once (token_delivery.hpp): the sizes of the exchanges. all_gather has one,
// hierarchical another within the node.
struct DeliveryCounts {
  RowRanges leaving, arriving;     // own tokens to each rank, and those from each
  RowRanges forwarded, delivered;  // those sent on to each rank, and what comes from each
  std::int64_t num_leaving = 0;
  std::int64_t num_arriving = 0;
  std::int64_t num_forwarded = 0;
  std::int64_t num_delivered = 0;  // tokens that have reached this rank in the end
};

// What of a route the host knows: the sizes of its exchanges. With one rank nothing travels and the
// host reads nothing: then every slot has room for a row, and which rows are in use Route::offsets
// tells.
struct RouteCounts {
  std::int64_t num_tokens = 0;
  std::int64_t num_sent = 0;  // slots with a row: rows on the token side
  std::int64_t num_rows = 0;  // R: rows this rank's experts receive
  // Empty with one rank.
  std::vector<std::int64_t> place_counts;    // [places]: rows of this rank's tokens by place
  std::vector<std::int64_t> recv_counts;     // [P, local places]: rows of each rank's tokens
  std::vector<std::int64_t> expert_offsets;  // [local places + 1] in the expert order
  std::int64_t padded_rows = 0;  // the same in place_counts and recv_counts of all; 0: they differ
  bool travels_once = false;     // tokens do, in place of a row for each choice
  DeliveryCounts delivery;       // of that
  RowCuts cuts;                  // none if all ranks hold all their rows at once

  bool is_cut() const { return !cuts.empty(); }
  // Rows that a buffer of the expert side holds at once.
  std::int64_t rows_at_once() const;
  // Rows that the forward pass leaves for the backward one, which has none where they are cut: they
  // travel again.
  std::int64_t kept_rows() const { return is_cut() ? 0 : num_rows; }
};

struct Route : RouteCounts {
  void for_each_tensor(const RecordVisitor& visit);

  Tensor offsets;         // i32 [local places + 1]: where the rows of each local expert begin, and
                          // where those of the last one end
  Tensor unit_offsets;    // i32 [local places * units + 1]: and of each unit of each local expert;
                          // exact mode only
  Tensor row_of_slot;     // i32 [T, k]: a slot's place among this rank's sorted rows, or -1
  Tensor token_of_row;    // i32 [T k], or more if rows are padded; -1 where there is no row
  Tensor arrival_of_row;  // i32 growable [R]: where a row of the expert order is among the rows by
                          // source, within its part if rows are cut. Only where rows of split
                          // sequences are merged after they arrived, or tokens travel once
  // Only where tokens travel once. i32: the token of a row of the expert order among those that
  // have reached this rank, growable [R]; with hierarchical the tokens that leave, node by node,
  // and which of those that arrive are sent on, by rank.
  Tensor delivered_row, leaving_token, forwarded_row;
  // Only where what experts return is added up (token_return.hpp), -1 for none: the rows of a token
  // that has reached this rank, i32 growable [tokens, m], and their weights, f32; where the row
  // that arrives as number i is in that, i32 growable [R]; which of the tokens that were sent on
  // are the copies of one that arrived, i32 growable [tokens, m]; and, by node, those of a token
  // that left, i32 [T, m].
  Tensor rows_of_delivered, weights_of_delivered, choice_of_arrival;
  Tensor copies_of_arriving, nodes_of_token;
};

// A part of an exchange: the rows of the places n index / count ... n (index + 1) / count - 1 of
// every rank, n being its number of places. So what a rank receives is a run of rows in the expert
// order, with which its experts can begin while another piece travels. All rows by default. Of a
// route that is cut, part `index` of as many as there are.
struct Piece {
  int index = 0;
  int count = 1;

  // The first of `num_places` places, and the one after the last.
  std::int64_t begin(std::int64_t num_places) const { return num_places * index / count; }
  std::int64_t end(std::int64_t num_places) const { return num_places * (index + 1) / count; }
};

// Of a piece: the rows for each rank among this rank's sorted rows, and the rows from each rank in
// the order of arrival; those of a part arrive as if they were all.
RowRanges rows_to_ranks(const RouteCounts& route, const Placement& placement, Piece piece);
RowRanges rows_from_ranks(const RouteCounts& route, int num_ranks, Piece piece);
// The same rows, each place's as a run of its own, and where these lie in the expert order of whole
// sequences: by place, then by source. So they need no order when they have arrived.
RowRanges runs_to_ranks(const RouteCounts& route, const Placement& placement, Piece piece);
RowRanges runs_from_ranks(const RouteCounts& route, int num_ranks, Piece piece);
// The rows of a piece in the expert order: the first, and the one after the last.
std::int64_t first_row_of(const RouteCounts& route, Piece piece);
std::int64_t end_row_of(const RouteCounts& route, Piece piece);
// The rows of a piece in a buffer of rows in the expert order, which of a route that is cut holds
// one part.
TensorView rows_of(const TensorView& buffer, const RouteCounts& route, Piece piece);
// The local experts that have rows of a piece: the first, and the one after the last.
struct ExpertRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  std::int64_t count() const { return end - begin; }
};
ExpertRange experts_of(const RouteCounts& route, Piece piece);

// Cuts rows in parts of at most most_rows: ascending, from 0 to the last offset. Groups, which
// begin at `offsets`, are cut only at multiples of `step` rows from their first one; step <=
// most_rows / 2.
std::vector<std::int64_t> cut_rows(std::span<const std::int64_t> offsets, std::int64_t most_rows,
                                   std::int64_t step);

}  // namespace switchyard
