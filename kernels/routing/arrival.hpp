// The order in which the experts of a rank take the rows that arrived from the ranks of their
// group.
#pragma once

#include "tensor/tensor.hpp"

namespace switchyard::kernels {

// Which of the sources, ranks 0 ... P - 1 of the group, hold parts of the same sequences: those
// with equal (first + p) / size, rounded down.
struct SharingSources {
  std::int64_t first = 0;
  std::int64_t size = 1;  // 1: none share
};

// Rows arrive sorted by (source, local expert, slot). Their order here is (local expert, source,
// slot); of sources that share sequences, (local expert, number of the token), whatever the source:
//   arrival_of_row[i] = where the i-th row of this order arrived.
// counts: i32 [P, experts], the rows of each source for each local expert. numbers: i32 [R], the
// number of the token of each row as it arrived, ascending for a source and expert and different
// for all tokens of sources that share; empty if none share. arrival_of_row: i32 [R], written; R is
// the sum of the counts.
// With rows_of_count so many rows arrive of each source for each expert, of which the first ones,
// as many as `counts` says, are rows; these come first in the order, and then -1. Of sources that
// do not share, and not on a card.
void arrival_order(const TensorView& counts, const TensorView& numbers,
                   const SharingSources& sharing, const TensorView& arrival_of_row,
                   std::int64_t rows_of_count = 0);

}  // namespace switchyard::kernels
