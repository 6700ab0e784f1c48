// Classes of positions by a hash of their keys, and what a query sees of its class (Reformer:
// Kitaev et al. 2020, in a causal form). The bucket of a key x is
//   argmax [x R; -x R],   R of `num_buckets` / 2 directions, of the equals the first
// and a query, which has the bucket of its own key, sees the last `window` keys of its bucket and
// document before it, itself only if no round shows it any other key. As published, sorted rows are
// cut into chunks whose borders depend on later tokens; here nothing does. With several rounds of
// hashing a key counts as often as rounds show it, as in Hugging Face's code.
//
// Keys take their places by bucket and position, queries likewise, so that what is seen are ranges
// that never go back (KeyRanges). On the CPU only.
// Legend: S sequences, n queries and m keys of each, A heads, D head_dim, R rounds.
#pragma once

#include <span>

#include "kernels/attention/key_ranges.hpp"
#include "tensor/tensor.hpp"

namespace switchyard::kernels {

// keys: [S m, A D], f32 or bf16, rows may be strided; directions: f32 [R num_buckets / 2, D].
// buckets: i32 [S m, R A], written: round after round, of every head.
void hash_keys(const TensorView& keys, std::int64_t head_dim, const TensorView& directions,
               std::int64_t num_buckets, const TensorView& buckets);

// One head of one sequence; keys are those at the positions 0 ... m - 1.
struct ClassQueries {
  KeyPattern pattern;  // has buckets
  std::span<const PositionRange> queries;
  std::int64_t head = 0, num_heads = 1;
  TensorView document_begins = {};  // i32 [1, length]: of the sequence; empty: one document
};
// Orders and ranges of one round; query_rows, first, end: i32 [n], key_rows: i32 [m].
struct ClassPlaces {
  TensorView query_rows, key_rows, first, end;
};
// buckets: i32 [m, R A], those rows of the sequence.
void sort_classes(const ClassQueries& asking, const TensorView& buckets, std::int64_t round,
                  const ClassPlaces& written);

// The pairs that a query of one head sees in a round if buckets are even: what a plan records.
double count_class_pairs(const KeyPattern& pattern, std::span<const PositionRange> queries,
                         std::int64_t num_sequences);

}  // namespace switchyard::kernels
