// tokenizer.json of Hugging Face's `tokenizers`: byte-pair models of bytes (GPT-2, Llama 3, Qwen,
// DeepSeek) and of characters with byte fallback (Llama 2, Mistral, Gemma). A text is cut at added
// tokens, normalised, split into words, and these are encoded; the results are those of
// Tokenizer.encode(text, add_special_tokens=False).
//
// What the program does not know it refuses by its name and place: a text that is normalised in
// another way has other tokens, and no loss would tell. Not used, as they are about batches of
// requests: `truncation` and `padding`. Of `post_processor` the tokens before a text are taken.
// Formats and their meaning: the sources of `tokenizers` 0.23.
#pragma once

#include <string_view>

#include "data/bpe/recipe.hpp"

namespace switchyard::bpe {

// DataError with `source`, the place inside the file and the reason.
TokenizerRecipe read_tokenizer_json(std::string_view json, std::string_view source);

}  // namespace switchyard::bpe
