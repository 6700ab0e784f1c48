// The word that somebody probably meant. Used for keys, legal values, commands and options; a word
// that resembles none of the candidates gets no suggestion, since a wrong one misleads. And what is
// wrong with a word that is none of the choices, told alike for keys and options.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace switchyard {

// Insertions, deletions, replacements and swaps of neighbours that turn one word into the other
// (the optimal string alignment distance).
std::int64_t edit_distance(std::string_view from, std::string_view to);

// The nearest candidate, if it is near: few edits for its length, one word inside the other
// (layers, num_layers), or the initials (lr, learning_rate). The first of several equally near.
std::optional<std::string> nearest(std::string_view word,
                                   std::span<const std::string_view> candidates);

// "'zigzga' is not a choice; use zigzag or contiguous; did you mean zigzag?"
std::string unknown_choice(std::string_view word, std::span<const std::string_view> choices);

}  // namespace switchyard
