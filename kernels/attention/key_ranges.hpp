// Which keys the queries of attention see. Queries and keys of a sequence are stored in ascending
// position, so a query sees a contiguous range of key rows whatever the mask: causal, a sliding
// window, documents, or a part of the keys that another rank holds. A pattern that shows more than
// one range has several sets of ranges, each with one for every query. The ranges are the whole
// mask. Which positions are seen is the pattern's business (kernels/attention/key_pattern.hpp):
// where these are no ranges, keys and queries take their places in another order than their rows,
// so that they are.
//
// A query at position p of a document that begins at b sees the positions lo(p) ... p with
//   lo(p) = max(b, p - window + 1)
//   first = keys with a position below lo(p)        end = keys with a position up to p
// and, with globals, the positions b ... min(b + globals, lo(p)) - 1 in a second set.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "kernels/attention/key_pattern.hpp"
#include "tensor/position_range.hpp"
#include "tensor/tensor.hpp"

namespace switchyard::kernels {

// The query at place i sees the keys at the places first[i] ... end[i] - 1 of its own sequence;
// none if first[i] == end[i]. Both i32 [num_sets * num_sequences * query_length], set after set,
// non-decreasing within a sequence of a set; no key is in two sets' ranges of a query. A place is
// a row of the sequence, or, in another order than that of the rows, the one that query_rows i32
// [query_length] or key_rows i32 [key_length] name for it, the same in all sequences. Borrowed.
struct KeyRanges {
  TensorView first;
  TensorView end;
  double num_pairs = 0;  // sum of end - first over all rows, for one head: what a plan records
  std::int64_t num_sets = 1;
  bool ascends = true;  // false: ranges may also go back
  TensorView query_rows = {};
  TensorView key_rows = {};
};

// By sequence: ascending positions above 0 at which a document begins. Empty: attention does not
// stop at documents.
using DocumentStarts = std::span<const std::vector<std::int32_t>>;

// Of which positions the queries and keys of every sequence are. Plain values that the host knows.
struct VisibleKeys {
  std::span<const PositionRange> queries;
  std::span<const PositionRange> keys;
  KeyPattern pattern = {};  // of all heads: no halves
  std::int64_t num_sequences = 1;
  // Of every sequence only these query rows see anything: first_query ... end_query - 1. Of plain
  // patterns alone.
  std::int64_t first_query = 0;
  std::int64_t end_query = std::numeric_limits<std::int64_t>::max();

  std::int64_t query_length() const { return num_positions(queries); }
};

// document_begins: i32 [num_sequences, length], written: the first position of each position's
// document. The starts are the host's; the call does not wait for the card.
void fill_document_begins(DocumentStarts document_starts, const TensorView& document_begins);

// rotary: i32 [S n], written: positions[i] counted from the begin of its document. positions: i32
// [S n], n rows a sequence; document_begins as above.
void restart_positions(const TensorView& positions, const TensorView& document_begins,
                       const TensorView& rotary);

// first, end: i32 [num_sets * num_sequences * query_length], written, of places in the pattern's
// orders (query_order, key_order). document_begins as above, with every position of the queries;
// empty: attention does not stop at documents.
void fill_key_ranges(const VisibleKeys& visible, const TensorView& document_begins,
                     const TensorView& first, const TensorView& end);

// Pairs of a query and a key that it sees, over all sequences, for one head.
double count_pairs(const VisibleKeys& visible, DocumentStarts document_starts = {});

// The plain case: query i of every sequence is at position query_offset + i among the keys and sees
// those up to its own position; with a window, only the last `window` of them.
struct CausalMask {
  std::int64_t num_sequences = 0;
  std::int64_t query_length = 0;
  std::int64_t key_length = 0;
  std::int64_t query_offset = 0;  // at least 0
  std::int64_t window = 0;        // 0: none
};
// Fills first and end (i32 [num_sequences * query_length]) and returns the ranges that borrow them.
KeyRanges causal_ranges(const CausalMask& mask, const TensorView& first, const TensorView& end);

}  // namespace switchyard::kernels
