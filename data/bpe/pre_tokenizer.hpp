// How a text is split into words before byte-pair encoding: steps one after another, each splitting
// what the one before left. No merge crosses the border of two words.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "data/bpe/split_pattern.hpp"

namespace switchyard::bpe {

// What becomes of the matches of a pattern.
enum class SplitBehavior : std::uint8_t {
  isolated,              // each is a word
  removed,               // they are left out
  merged_with_previous,  // each belongs to what stands before it
  merged_with_next,
  contiguous,  // several in a row are one word
};
struct SplitStep {
  SplitPattern pattern;
  SplitBehavior behavior = SplitBehavior::isolated;
  bool inverted = false;  // what lies between the matches is taken for the matches
};

enum class PrefixRule : std::uint8_t { never, first, always };
// Spaces become `mark`, which a text then begins with: `first` is the text's beginning only.
struct MarkStep {
  std::string mark;
  PrefixRule prefix = PrefixRule::always;
  bool splits = true;  // before each mark
};
// A text without a space at its beginning gets one.
struct SpaceStep {};

using SplitterStep = std::variant<SplitStep, MarkStep, SpaceStep>;

using TakeWord = std::function<void(std::string_view)>;

class PreTokenizer {
 public:
  explicit PreTokenizer(std::vector<SplitterStep> steps = {}) : steps_(std::move(steps)) {}
  // The words of valid UTF-8, in order, none of them empty. begins_text: nothing stands before it.
  void for_each_word(std::string_view text, bool begins_text, const TakeWord& take) const;

 private:
  void run(std::size_t step, std::string_view text, bool begins_text, const TakeWord& take) const;

  std::vector<SplitterStep> steps_;
};

}  // namespace switchyard::bpe
