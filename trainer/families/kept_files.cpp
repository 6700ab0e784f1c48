#include "trainer/families/kept_files.hpp"

#include <limits>

#include "data/files/atomic_file.hpp"
#include "trainer/checkpoint/place.hpp"

namespace switchyard {

std::optional<ConfigJson> kept_json(const std::string& checkpoint, const std::string& name) {
  const std::optional<std::string> path =
      kept_in_run_of(checkpoint, std::string(kept_folder_name) + "/" + name);
  if (!path) return std::nullopt;
  return ConfigJson(read_file(*path, std::int64_t{1} << 24), *path);
}

std::vector<std::int32_t> end_tokens_of(const std::string& checkpoint) {
  constexpr const char* key = "eos_token_id";
  std::vector<std::int32_t> tokens;
  for (const char* name : {generation_config_name, config_name}) {
    const std::optional<ConfigJson> json = kept_json(checkpoint, name);
    if (!json) continue;
    for (const std::int64_t token : json->one_or_more_integers(key)) {
      if (token < 0 || token > std::numeric_limits<std::int32_t>::max())
        json->refuse(key, "a token is a number of at least 0");
      tokens.push_back(static_cast<std::int32_t>(token));
    }
    if (!tokens.empty()) break;
  }
  return tokens;
}

}  // namespace switchyard
