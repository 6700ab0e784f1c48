// Choices that do not look at scores: by the token's id, or by where it stands. Legend: T tokens, E
// experts, k choices.
#pragma once

#include <span>

#include "tensor/random.hpp"
#include "tensor/tensor.hpp"

namespace switchyard::kernels {

// Random hash (Roller et al.: Hash layers, 2021, section 3.1): k different experts that are a fixed
// random function of the token id, all sets being alike likely. tokens: i32 [T]; indices: i32 [T,
// k], written.
void select_by_hash(const TensorView& tokens, RandomKey key, std::int64_t num_experts,
                    const TensorView& indices);

// Where tokens stand: token t is number sequence_ids[t / rows_of_sequence] * sequence_length +
// positions[t] of all. positions: i32 [T]; sequence_ids: i64.
struct TokenNumbers {
  std::int64_t rows_of_sequence = 1;  // that this rank has
  std::int64_t sequence_length = 1;   // of whole sequences
  TensorView positions = {};
  TensorView sequence_ids = {};
};

// A given load: token number n goes to the k experts e for which, for some whole j,
//   begin[e] <= frac(n / golden ratio) + j < begin[e + 1],  begin[e] = sum over d < e of share[d]
// (systematic sampling along a sequence that fills the unit interval evenly), so that expert e has
// its share of any long run of tokens. shares: [E], in [0, 1] with the sum k; computed in multiples
// of 2^-32. indices: i32 [T, k], written, ascending.
void select_by_shares(const TokenNumbers& numbers, std::span<const double> shares,
                      const TensorView& indices);

// Token number n goes to the experts (n k + j) mod E.
void select_in_turn(const TokenNumbers& numbers, std::int64_t num_experts,
                    const TensorView& indices);

}  // namespace switchyard::kernels
