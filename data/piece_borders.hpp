// Where a text may be cut so that SentencePiece gives the parts the tokens that it gives the whole.
//
// A piece is found only if it is in the vocabulary, so no piece crosses a border that none in the
// vocabulary crosses. In most models a space (written U+2581) occurs at the beginning of pieces
// only: the border before a space that follows another character. And a line end occurs in none
// where it is written as a byte: the border behind it. Models that change texts (normalisation,
// spaces left out) have no borders here. (The sums of a unigram model's scores, in single
// precision, are shorter behind a cut: where two ways to cut a word are equally probable to
// rounding, the other may win. Byte-pair models add nothing up.)
//
// Private to data/*.cpp.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string_view>

#include "data/tokenizer.hpp"

namespace sentencepiece {
class SentencePieceProcessor;
}

namespace switchyard {

inline constexpr std::string_view space_mark = "\xE2\x96\x81";  // U+2581

struct PieceBorders {
  bool before_space = false;
  bool behind_line = false;
  // Whether a later part is encoded behind a line end, lest it get a space before it.
  bool needs_guard = false;
  // Whether U+2581 of a text can be told from a space: there are byte pieces, and what follows them
  // can be encoded alone.
  bool writes_mark_as_bytes = false;
  std::array<std::int32_t, 3> mark_bytes{};  // the pieces of its bytes
};

PieceBorders borders_of(const sentencepiece::SentencePieceProcessor& processor);

// Calls `take` with the parts of a text, in order; one part where it is short. Adds to `notes`.
void for_each_part(std::string_view text, const PieceBorders& borders, PieceLimits limits,
                   EncodeNotes& notes, const std::function<void(std::string_view)>& take);

}  // namespace switchyard
