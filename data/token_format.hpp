// Names and constants of the token file's format (see token_file.hpp), shared by its reader and its
// writer. Private to data/*.cpp.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "data/token_file.hpp"

namespace switchyard::token_format {

inline constexpr std::string_view name = "switchyard tokens";
inline constexpr std::int64_t version = 1;
inline constexpr std::int64_t version_with_mask = 2;
inline constexpr std::int64_t block_bytes = std::int64_t{1} << 20;
inline constexpr std::int32_t max_u16_vocab = 65536;

inline std::string in_split(Split split, std::string_view dataset) {
  return std::string("/").append(name_of(split)).append("/").append(dataset);
}
inline std::int64_t num_blocks(std::int64_t num_bytes) {
  return num_bytes / block_bytes + (num_bytes % block_bytes != 0 ? 1 : 0);
}

}  // namespace switchyard::token_format
