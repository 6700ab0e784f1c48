// Patterns of Oniguruma and fancy-regex as PCRE2 is to read them.
#pragma once

#include <string>
#include <string_view>

#include "data/bpe/split_pattern.hpp"

namespace switchyard::bpe {

// DataError, with `source`, for what has no exact translation.
std::string pcre2_pattern(std::string_view pattern, PatternDialect dialect,
                          std::string_view source);

}  // namespace switchyard::bpe
