// Tokens that are looked for in a text before anything else is done with it: special ones such as
// <|endoftext|>, and words that were added to a vocabulary later. At each place the longest counts,
// and what a token takes is nobody else's.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace switchyard::bpe {

struct AddedToken {
  std::string text;
  std::int32_t id = 0;
  bool single_word = false;  // no letter, mark, digit or connector may stand beside it
  bool takes_left_space = false, takes_right_space = false;
  bool normalized = false;  // looked for in the normalised text
  bool special = false;     // means something to the model, and is no text
};

class AddedTokens {
 public:
  explicit AddedTokens(std::vector<AddedToken> tokens = {});
  bool empty() const { return tokens_.empty(); }

  // The parts of valid UTF-8 in order: a token's id (and what it stands for in the text), or -1 and
  // the text between tokens, never empty.
  void for_each_part(std::string_view text,
                     const std::function<void(std::int32_t, std::string_view)>& take) const;

 private:
  const AddedToken* longest_at(std::string_view rest) const;

  std::vector<AddedToken> tokens_;    // sorted by text
  std::vector<bool> begins_a_token_;  // [256], by the first byte
};

}  // namespace switchyard::bpe
