#include "launch/suggestion.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cctype>
#include <vector>

namespace switchyard {
namespace {

constexpr std::int64_t far = 1'000'000;
constexpr std::size_t longest_word = 64;  // longer ones are no misspelt key

std::string lower_case(std::string_view word) {
  std::string lower(word);
  for (char& letter : lower) {
    letter =
        letter == '-' ? '_' : static_cast<char>(std::tolower(static_cast<unsigned char>(letter)));
  }
  return lower;
}

std::string initials(std::string_view word) {
  std::string letters;
  for (std::size_t i = 0; i < word.size(); ++i) {
    if (word[i] != '_' && (i == 0 || word[i - 1] == '_')) letters += word[i];
  }
  return letters;
}

// How far `word` is from `candidate` by the rules of nearest(); `far` when it is not near.
std::int64_t remoteness(const std::string& word, const std::string& candidate) {
  const std::int64_t distance = edit_distance(word, candidate);
  const auto length = static_cast<std::int64_t>(std::max(word.size(), candidate.size()));
  if (distance <= std::max<std::int64_t>(1, length / 3) && distance < length) return distance;
  if (word.size() >= 4 && candidate.find(word) != std::string::npos) return length / 3 + 1;
  if (candidate.size() >= 4 && word.find(candidate) != std::string::npos) return length / 3 + 1;
  if (word.size() >= 2 && initials(candidate) == word) return length;
  return far;
}

}  // namespace

std::int64_t edit_distance(std::string_view from, std::string_view to) {
  const std::size_t width = to.size() + 1;
  std::vector<std::int64_t> table((from.size() + 1) * width);
  const auto cell = [&](std::size_t i, std::size_t j) -> std::int64_t& {
    return table[i * width + j];
  };
  for (std::size_t i = 0; i <= from.size(); ++i) cell(i, 0) = static_cast<std::int64_t>(i);
  for (std::size_t j = 0; j <= to.size(); ++j) cell(0, j) = static_cast<std::int64_t>(j);
  for (std::size_t i = 1; i <= from.size(); ++i) {
    for (std::size_t j = 1; j <= to.size(); ++j) {
      const std::int64_t replaced = cell(i - 1, j - 1) + (from[i - 1] == to[j - 1] ? 0 : 1);
      std::int64_t best = std::min({replaced, cell(i - 1, j) + 1, cell(i, j - 1) + 1});
      if (i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1]) {
        best = std::min(best, cell(i - 2, j - 2) + 1);
      }
      cell(i, j) = best;
    }
  }
  return cell(from.size(), to.size());
}

std::optional<std::string> nearest(std::string_view word,
                                   std::span<const std::string_view> candidates) {
  if (word.empty() || word.size() > longest_word) return std::nullopt;
  const std::string lower = lower_case(word);
  std::int64_t best_distance = far;
  std::optional<std::string> best;
  for (const std::string_view candidate : candidates) {
    const std::int64_t distance = remoteness(lower, lower_case(candidate));
    if (distance < best_distance) {
      best_distance = distance;
      best = std::string(candidate);
    }
  }
  return best;
}

std::string unknown_choice(std::string_view word, std::span<const std::string_view> choices) {
  std::string names;
  for (std::size_t i = 0; i < choices.size(); ++i) {
    if (i > 0) names += i + 1 == choices.size() ? " or " : ", ";
    names += choices[i];
  }
  const auto near = nearest(word, choices);
  return fmt::format("'{}' is not a choice; use {}{}", word, names,
                     near ? fmt::format("; did you mean {}?", *near) : "");
}

}  // namespace switchyard
