#include "data/prepare/valid_split.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "tensor/random.hpp"

namespace switchyard {

namespace {

// What one token tells of the places before and behind it.
struct TokenTraits {
  bool is_blank = true;  // adds nothing but white space, or nothing
  bool ends_document = false;
  bool ends_line = false;         // its last byte is a line end
  bool ends_word = false;         // its last byte is white space
  bool begins_word = false;       // its first byte is white space
  bool begins_character = false;  // not in the middle of a UTF-8 character
};

bool is_space(char c) {
  return std::string_view(" \t\r\n\v\f").find(c) != std::string_view::npos;
}

std::vector<TokenTraits> traits_of(const Tokenizer& tokenizer) {
  std::vector<TokenTraits> traits(static_cast<std::size_t>(tokenizer.vocab_size()));
  for (std::size_t i = 0; i < traits.size(); ++i) {
    const auto token = static_cast<std::int32_t>(i);
    const std::string bytes = tokenizer.token_bytes(token);
    traits[i].ends_document = token == tokenizer.end_of_document();
    if (bytes.empty()) continue;
    traits[i].is_blank = std::ranges::all_of(bytes, is_space);
    traits[i].ends_line = bytes.back() == '\n';
    traits[i].ends_word = is_space(bytes.back());
    traits[i].begins_word = is_space(bytes.front());
    traits[i].begins_character = (static_cast<unsigned char>(bytes.front()) & 0xC0) != 0x80;
  }
  return traits;
}

// The tokens of the training split from the end backwards, in memory a block at a time.
class BackwardTokens {
 public:
  BackwardTokens(TokenFileWriter& writer, const std::vector<TokenTraits>& traits)
      : writer_(writer), traits_(traits) {}
  const TokenTraits& operator[](std::int64_t position) {
    if (position < begin_ || position >= begin_ + std::ssize(block_)) {
      begin_ = std::max<std::int64_t>(0, position + 1 - block_tokens);
      block_.resize(static_cast<std::size_t>(position + 1 - begin_));
      writer_.read_tokens(Split::train, begin_, block_);
    }
    return traits_[static_cast<std::size_t>(block_[static_cast<std::size_t>(position - begin_)])];
  }

 private:
  static constexpr std::int64_t block_tokens = 1 << 16;
  TokenFileWriter& writer_;
  const std::vector<TokenTraits>& traits_;
  std::int64_t begin_ = 0;
  std::vector<std::int32_t> block_;
};

enum class Border : std::uint8_t { document, line, word, character, none };

struct Cut {
  std::int64_t begin = 0;  // of the validation split, in tokens
  Border border = Border::none;
};

Border border_before(BackwardTokens& tokens, std::int64_t position) {
  const TokenTraits before = tokens[position - 1];
  const TokenTraits behind = tokens[position];
  if (before.ends_document) return Border::document;
  if (behind.ends_document || !behind.begins_character) return Border::none;
  if (before.ends_line) return Border::line;
  return before.ends_word || behind.begins_word ? Border::word : Border::character;
}

// The last place at or before the wanted one, of the best kind there is.
Cut find_cut(BackwardTokens tokens, std::int64_t num_tokens, double fraction) {
  std::int64_t last = num_tokens - 1;  // what follows it must not be blank
  while (last > 0 && tokens[last].is_blank) --last;
  const auto wanted =
      std::max<std::int64_t>(1, std::llround(fraction * static_cast<double>(num_tokens)));
  const std::int64_t target = std::min(num_tokens - wanted, last);
  const std::int64_t least = std::max<std::int64_t>(1, target / 2);
  Cut best;
  for (std::int64_t position = target; position >= least; --position) {
    const Border border = border_before(tokens, position);
    if (border < best.border) best = {position, border};
    if (border <= Border::line) break;
  }
  return best;
}

}  // namespace

double lot_of(std::uint64_t seed, std::string_view purpose, std::int64_t document) {
  return random_words(random_key(seed, purpose), static_cast<std::uint64_t>(document), 0)[0] *
         0x1p-32;
}

Split split_of_document(std::uint64_t seed, double valid_fraction, std::int64_t document) {
  const bool is_valid = document > 0 && lot_of(seed, "validation split", document) < valid_fraction;
  return is_valid ? Split::valid : Split::train;
}

std::string take_valid_from_end(TokenFileWriter& writer, const Tokenizer& tokenizer,
                                double fraction) {
  const std::vector<TokenTraits> traits = traits_of(tokenizer);
  const std::int64_t num_tokens = writer.num_tokens(Split::train);
  const std::int64_t num_documents = writer.num_documents(Split::train);
  const Cut cut = find_cut({writer, traits}, num_tokens, fraction);
  const std::string too_few =
      fmt::format("{} {} too few for a share of {}", num_documents,
                  num_documents == 1 ? "document is" : "documents are", fraction);
  if (cut.border == Border::none)
    return fmt::format("{}, and there is no place to divide them: no validation set", too_few);
  writer.move_tail(Split::train, Split::valid, cut.begin);
  constexpr std::array<std::string_view, 4> places{
      "between documents", "one document is cut at a line",
      "one document is cut at a space (no line begins near there)",
      "one document is cut inside a word (no line or word begins near there)"};
  return fmt::format("{}: validation takes the last {:.2g}% of the tokens; {}", too_few,
                     100.0 * static_cast<double>(writer.num_tokens(Split::valid)) /
                         static_cast<double>(num_tokens),
                     places[static_cast<std::size_t>(cut.border)]);
}

}  // namespace switchyard
