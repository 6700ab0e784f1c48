// What a run keeps of the published model that it was made of: RUN/hugging_face, with config.json,
// generation_config.json, the tokenizer's files and others, as they came.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "trainer/families/config_json.hpp"

namespace switchyard {

inline constexpr const char* kept_folder_name = "hugging_face";
inline constexpr const char* config_name = "config.json";
inline constexpr const char* generation_config_name = "generation_config.json";

// A file of the run that `checkpoint` lies in; none if it is not there. DataError if it is damaged.
std::optional<ConfigJson> kept_json(const std::string& checkpoint, const std::string& name);

// The tokens of which any ends a generated text, as transformers' generate() has it: eos_token_id,
// one or a list, of generation_config.json, else of config.json. None of a model of our own.
// DataError if what stands there is no token.
std::vector<std::int32_t> end_tokens_of(const std::string& checkpoint);

}  // namespace switchyard
