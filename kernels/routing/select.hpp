// Which experts a token chooses.
#pragma once

#include <array>
#include <string_view>

#include "tensor/tensor.hpp"

namespace switchyard::kernels {

// How good a group of experts is for a token: its best expert (DeepSeek-V2, 2024, section 2.2.2) or
// the sum of its best two (DeepSeek-V3, 2024, section 2.1.2); of one expert, that.
enum class GroupScore : std::uint8_t { best, best_two };
constexpr std::array<std::string_view, 2> choice_names(GroupScore) {
  return {"best", "best_two"};
}

// What counts for a choice beside the scores.
struct Selection {
  TensorView bias = {};  // f32 [E], added to the scores for the choice alone; empty: none
  // Group g has the experts g E / num_groups ... (g + 1) E / num_groups - 1. A token chooses from
  // its best top_groups groups, ties to the lower group; the experts of all others count as
  // -infinity. Groups are judged by what the experts are, the bias included.
  std::int64_t num_groups = 1;
  std::int64_t top_groups = 1;
  GroupScore group_score = GroupScore::best;

  std::int64_t num_chosen = 0;  // of the k choices, the first; the others are -1; 0: all

  bool limits_groups() const { return top_groups < num_groups; }
};

// Groups of a choice on a card.
inline constexpr std::int64_t most_groups_on_card = 32;

// The k largest scores of each row, largest first, ties to the lower expert. Of a row whose scores
// cannot be ordered (NaN, all -infinity) the lowest experts that are left are taken, so that every
// index is legal and a row's are different. scores: f32 [T, E]; indices: i32 [T, k], written.
// num_groups divides E, and the experts of top_groups groups are at least k.
void select_top_k(const TensorView& scores, const TensorView& indices,
                  const Selection& selection = {});

}  // namespace switchyard::kernels
