// All that makes a byte-pair tokenizer, whatever file it came from.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "data/bpe/added_tokens.hpp"
#include "data/bpe/bpe_model.hpp"
#include "data/bpe/normalizer.hpp"
#include "data/bpe/pre_tokenizer.hpp"

namespace switchyard::bpe {

struct TokenizerRecipe {
  BpeVocabulary vocabulary;
  std::vector<std::pair<std::string, std::int32_t>> no_words;  // further tokens, in no word
  std::vector<AddedToken> added;
  bool finds_added = true;  // in texts; else their letters are text like any other
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  // What decoding does: gives this mark back as a space, <0xNN> as a byte, and leaves out the space
  // that the beginning of a text got.
  std::string space_mark;
  bool has_byte_names = false;
  bool strips_first_space = false;
  // Tokens that the model expects before a text (the file's post-processor), such as <s>.
  std::vector<std::int32_t> begin;
  std::optional<std::int32_t> end_of_document;
};

// Ids are numbers of tables, so no file may ask for much larger ones than it has tokens. DataError,
// with `source`, for an id below 0 or above the limit.
void check_token_id(std::int64_t id, std::size_t num_tokens, std::string_view source);

// The token of the value of a byte in the vocabularies of SentencePiece: <0x00> to <0xFF>.
std::string byte_name(unsigned byte);

}  // namespace switchyard::bpe
