// Files of `tiktoken`: a token a line, its bytes in base64, a space, its rank, which is its id. How
// texts are split into words and which special tokens there are does not stand in them; it belongs
// to an encoding, which is told by its name: r50k_base (GPT-2), p50k_base, cl100k_base, o200k_base,
// o200k_harmony (gpt-oss), llama3, qwen. The letters of a special token in a text are text: the
// results are those of Encoding.encode_ordinary().
#pragma once

#include <optional>
#include <string_view>

#include "data/bpe/recipe.hpp"

namespace switchyard::bpe {

// The encoding of a file by its name (cl100k_base.tiktoken); none where that tells nothing.
std::optional<std::string_view> encoding_of_file(std::string_view path);
// "r50k_base, p50k_base, ...", for messages.
std::string known_encodings();

// ConfigError for an encoding that is not known; DataError with `source` and the line.
TokenizerRecipe read_tiktoken(std::string_view text, std::string_view encoding,
                              std::string_view source);

}  // namespace switchyard::bpe
