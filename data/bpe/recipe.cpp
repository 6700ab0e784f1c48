#include "data/bpe/recipe.hpp"

#include <fmt/core.h>

#include "tensor/error.hpp"

namespace switchyard::bpe {

void check_token_id(std::int64_t id, std::size_t num_tokens, std::string_view source) {
  constexpr std::int64_t gaps = 4096;  // reserved ids that a file does not name
  const std::int64_t most = 2 * static_cast<std::int64_t>(num_tokens) + gaps;
  if (id < 0 || id > most)
    throw DataError(
        fmt::format("{}: a token has the id {}, and the file has {} tokens: ids from 0 "
                    "to {} are taken",
                    source, id, num_tokens, most));
}

std::string byte_name(unsigned byte) {
  return fmt::format("<0x{:02X}>", byte);
}

}  // namespace switchyard::bpe
