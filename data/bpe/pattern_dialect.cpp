#include "data/bpe/pattern_dialect.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <utility>

#include "tensor/error.hpp"

namespace switchyard::bpe {

namespace {

// White_Space of Unicode. PCRE2's \s has U+180E besides, which no longer is a space.
constexpr std::string_view white_space =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
// PCRE2's \w lacks marks, connectors and circled letters.
constexpr std::string_view word_characters = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc})";

bool is_alphanumeric(char c) {
  return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

class Translation {
 public:
  Translation(std::string_view pattern, PatternDialect dialect, std::string_view source)
      : pattern_(pattern), dialect_(dialect), source_(source) {}

  std::string run() {
    while (at_ < pattern_.size()) {
      const char c = pattern_[at_];
      if (c == '\\')
        escape();
      else if (c == '[')
        set();
      else if (c == '(')
        group();
      else if (c == '{')
        count();
      else
        copy(1);
    }
    return std::move(result_);
  }

 private:
  [[noreturn]] void refuse(std::string_view what) const {
    throw DataError(
        fmt::format("{}: the pattern {} has {} at its byte {}, which this program does "
                    "not know",
                    source_, pattern_, what, at_));
  }
  std::string_view rest() const { return pattern_.substr(at_); }
  void copy(std::size_t count) {
    result_ += pattern_.substr(at_, count);
    at_ += count;
  }

  // \X, in a set or outside.
  void escape() {
    if (rest().size() < 2) refuse("a single \\ at the end");
    const char c = rest()[1];
    if (c == 's' || c == 'S') return known_set(white_space, c == 'S');
    if (c == 'w' || c == 'W') return known_set(word_characters, c == 'W');
    if (c == 'u') return code_point();
    constexpr std::string_view same = "dDnrtfpPx";
    if (is_alphanumeric(c) && same.find(c) == std::string_view::npos)
      refuse(fmt::format("\\{}", c));
    copy(2);
    const bool has_name = (c == 'p' || c == 'P' || c == 'x') && rest().starts_with('{');
    if (has_name) copy(std::min(rest().size(), rest().find('}') + 1));
  }

  void known_set(std::string_view characters, bool is_complement) {
    if (is_complement && in_set_) refuse("a complement inside a set");
    at_ += 2;
    if (in_set_)
      result_ += characters;
    else
      result_ += fmt::format("[{}{}]", is_complement ? "^" : "", characters);
  }

  // \uHHHH
  void code_point() {
    const std::string_view digits = rest().substr(2, 4);
    if (digits.size() < 4 ||
        digits.find_first_not_of("0123456789abcdefABCDEF") != std::string_view::npos)
      refuse("a \\u without four digits");
    result_ += fmt::format("\\x{{{}}}", digits);
    at_ += 6;
  }

  void set() {
    copy(1);
    in_set_ = true;
    if (rest().starts_with('^')) copy(1);
    bool is_first = true;
    for (; !rest().starts_with(']') || is_first; is_first = false) {
      if (rest().empty()) refuse("a set without ]");
      if (is_first && rest().starts_with(']')) refuse("an empty set");
      if (rest().starts_with("&&")) refuse("&&");
      if (rest().starts_with("[:")) {
        const std::size_t end = rest().find(":]");
        if (end == std::string_view::npos) refuse("a [: without :]");
        copy(end + 2);
      } else if (rest().starts_with('[')) {
        refuse("a set inside a set");
      } else if (rest().starts_with('\\')) {
        escape();
      } else {
        copy(1);
      }
    }
    copy(1);
    in_set_ = false;
  }

  void group() {
    constexpr std::array<std::string_view, 8> known{"(?:",  "(?i:", "(?=", "(?!",
                                                    "(?<=", "(?<!", "(?>", "("};
    for (const std::string_view begin : known) {
      if (!rest().starts_with(begin)) continue;
      if (begin == "(" && (rest().starts_with("(?") || rest().starts_with("(*"))) break;
      return copy(begin.size());
    }
    refuse("a special group");
  }

  // {m,n}
  void count() {
    const std::size_t end = rest().find('}');
    const bool is_count =
        end != std::string_view::npos && end > 1 &&
        rest().substr(1, end - 1).find_first_not_of("0123456789,") == std::string_view::npos &&
        rest()[1] != ',';
    if (!is_count) refuse("a { that begins no count such as {1,3}");
    copy(end + 1);
    if (rest().starts_with('+') && dialect_ == PatternDialect::oniguruma) refuse("a + behind }");
  }

  std::string_view pattern_;
  PatternDialect dialect_;
  std::string_view source_;
  std::size_t at_ = 0;
  bool in_set_ = false;
  std::string result_;
};

}  // namespace

std::string pcre2_pattern(std::string_view pattern, PatternDialect dialect,
                          std::string_view source) {
  return Translation(pattern, dialect, source).run();
}

}  // namespace switchyard::bpe
