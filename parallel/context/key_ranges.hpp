// Which keys the queries of some segments see among the keys of others. A query at position p sees
// the positions lo(p) ... p with lo(p) = max(begin of p's document, p - window + 1). Rows ascend in
// position on both sides, so these are always a contiguous range of key rows:
//   first = keys with a position below lo(p)        end = keys with a position up to p
// This is all that attention over split sequences needs to know of layouts, documents and windows.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "parallel/context/sequence_split.hpp"

namespace switchyard {

// By sequence: ascending positions above 0 at which a document begins. Empty: attention does not
// stop at documents.
using DocumentStarts = std::span<const std::vector<std::int32_t>>;

struct VisibleKeys {
  std::span<const Segment> queries;  // of a sequence, ascending
  std::span<const Segment> keys;
  std::int64_t window = 0;  // 0: all positions of the document
  DocumentStarts document_starts = {};
  std::int64_t num_sequences = 1;
};

// Pairs of a query and a key that it sees, over all sequences, for one head.
double count_pairs(const VisibleKeys& visible);

// first, end: num_sequences * (number of queries) values each, sequence after sequence.
void fill_key_ranges(const VisibleKeys& visible, std::int32_t* first, std::int32_t* end);

// The positions that at least one of the queries sees when documents are left aside: what must be
// brought to them.
std::vector<Segment> seen_positions(std::span<const Segment> queries, std::int64_t window);

}  // namespace switchyard
