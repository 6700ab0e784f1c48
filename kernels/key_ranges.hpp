// Which keys the queries of attention see. Queries and keys of a sequence are stored in ascending
// position, so a query sees one contiguous range of key rows whatever the mask: causal, a sliding
// window, documents, or a part of the keys that another rank holds. The ranges are the whole mask.
#pragma once

#include "tensor/tensor.hpp"

namespace switchyard::kernels {

// Query row i sees the keys first[i] ... end[i] - 1 of its own sequence, counted from that
// sequence's first key row; none if first[i] == end[i]. Both i32 [num_sequences * query_length],
// non-decreasing within a sequence. Borrowed.
struct KeyRanges {
  TensorView first;
  TensorView end;
  double num_pairs = 0;  // sum of end - first over all rows, for one head: what a plan records
};

// The plain case: query i of every sequence is at position query_offset + i among the keys and sees
// those up to its own position; with a window, only the last `window` of them.
struct CausalMask {
  std::int64_t num_sequences = 0;
  std::int64_t query_length = 0;
  std::int64_t key_length = 0;
  std::int64_t query_offset = 0;  // at least 0
  std::int64_t window = 0;        // 0: none
};
// Fills first and end (i32 [num_sequences * query_length], contiguous; not on the plan device) and
// returns the ranges that borrow them.
KeyRanges causal_ranges(const CausalMask& mask, const TensorView& first, const TensorView& end);

}  // namespace switchyard::kernels
