// Choices that are made over all tokens of a sequence at once, so that each expert of the sequence
// gets its share. A token's experts then depend on tokens that come after it. Legend: S sequences
// of L tokens, T = S L, E experts, k choices. Sequences do not know of each other.
#pragma once

#include <array>
#include <string_view>

#include "tensor/tensor.hpp"

namespace switchyard::kernels {

// Sinkhorn (Clark et al.: Unified scaling laws for routed language models, 2022, appendix B.2.1):
// the plan u_t exp(logits[t, e]) v_e whose rows have the sum 1 and whose columns have L / E, by
// turns (Sinkhorn and Knopp, 1967) until no v changes by more than 1 part in 10^4, or 100 turns are
// done. Who chooses the largest of a row chooses nearly evenly. Sums in double. logits, plan: f32
// [T, E]; plan is written.
void sinkhorn_plan(const TensorView& logits, std::int64_t sequence_length, const TensorView& plan);

// BASE (Lewis et al.: BASE layers, 2021, section 3): of all assignments of k different experts to
// each token in which every expert of a sequence gets floor(L k / E) or one more, the one with the
// largest sum of the assigned scores. Exactly, by successive shortest paths (Ahuja, Magnanti,
// Orlin: Network flows, 1993, section 9.7) over scores rounded to multiples of 2^-24 within +-
// 2^20; NaN counts as the least. scores: f32 [T, E], E at most 4096; indices: i32 [T, k], written,
// highest score first.
void select_balanced(const TensorView& scores, std::int64_t sequence_length,
                     const TensorView& indices);

// Expert choice (Zhou et al.: Mixture-of-experts with expert choice routing, 2022, section 3.2):
// each expert chooses the round(capacity L / E), at least 1 and at most L, tokens of the sequence
// with its largest scores, ties to the earlier token. capacity: experts that a token has on
// average. A token that more than k experts chose keeps those with its k largest scores. scores:
// f32 [T, E]; indices: i32 [T, k], written: highest score first, then -1.
void select_by_experts(const TensorView& scores, std::int64_t sequence_length, double capacity,
                       const TensorView& indices);

// Which choices an expert keeps that more tokens of a sequence chose than it has room for: those of
// the first tokens (Fedus, Zoph, Shazeer: Switch Transformers, 2021, section 2.2), which depends on
// nothing that comes later, or those with the largest scores, ties to the earlier token.
enum class DropBy : std::uint8_t { position, score };
constexpr std::array<std::string_view, 2> choice_names(DropBy) {
  return {"position", "score"};
}
// In each sequence every expert keeps at most `capacity` choices; the others become -1. scores: f32
// [T, E]; indices: i32 [T, k], changed in place.
void drop_over_capacity(const TensorView& scores, std::int64_t sequence_length,
                        std::int64_t capacity, DropBy drop_by, const TensorView& indices);

}  // namespace switchyard::kernels
