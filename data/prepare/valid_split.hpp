// The validation split of too few documents: when none of them was drawn for it, the last share of
// the tokens is taken, at a line where there is one. Private to data/*.cpp.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "data/token_file.hpp"
#include "data/tokenizer.hpp"

namespace switchyard {

// A number in [0, 1) for a document, from its number and a purpose alone.
double lot_of(std::uint64_t seed, std::string_view purpose, std::int64_t document);
// Where a document belongs. The first one is always for training, so that split is never empty.
Split split_of_document(std::uint64_t seed, double valid_fraction, std::int64_t document);

// Moves the end of the training split, about `fraction` of all tokens, to the empty validation
// split: whole documents, and the end of one that is cut at the beginning of a line; where no line
// begins so that training keeps at least half of its share, at a space, else at a character. Says
// what was done, for the summary.
std::string take_valid_from_end(TokenFileWriter& writer, const Tokenizer& tokenizer,
                                double fraction);

}  // namespace switchyard
