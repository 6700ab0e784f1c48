// Between the Tokenizer interface and data/bpe. Private to data/*.cpp.
#pragma once

#include <memory>
#include <string_view>

#include "data/tokenizer.hpp"

namespace switchyard {

// What a tokenizer of tokenizer.json or tiktoken has serialized; none if it is not of these kinds.
std::unique_ptr<Tokenizer> bpe_tokenizer_of_blob(std::string_view blob, std::string_view source);

}  // namespace switchyard
