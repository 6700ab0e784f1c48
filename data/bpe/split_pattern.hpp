// A regular expression of a tokenizer, which says where texts are split. Tokenizer files are
// written for Oniguruma (`tokenizers`) or fancy-regex (`tiktoken`); PCRE2 runs them. What the three
// read in different ways is written out for PCRE2 (white space, word characters), or refused:
// nested sets, (?i) in the middle, {m,n}+, names of groups. Unicode is that of PCRE2: 14.0 in
// Debian 12.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace switchyard::bpe {

enum class PatternDialect : std::uint8_t {
  oniguruma,  // $ and ^ are at line ends
  rust,       // at the ends of the text; {m,n}+ does not give back
};

class SplitPattern {
 public:
  // DataError with `source`, the pattern and the reason if it cannot be run.
  SplitPattern(std::string_view pattern, PatternDialect dialect, std::string_view source);
  ~SplitPattern();
  SplitPattern(SplitPattern&&) noexcept;
  SplitPattern& operator=(SplitPattern&&) noexcept;

  // Calls `take` with begin and end of the matches in valid UTF-8, from left to right; empty ones
  // are passed over. Several threads at once.
  void for_each_match(std::string_view text,
                      const std::function<void(std::size_t, std::size_t)>& take) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// A pattern that matches this text and no other.
std::string quoted_pattern(std::string_view text);

}  // namespace switchyard::bpe
