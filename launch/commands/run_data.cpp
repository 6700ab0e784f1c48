#include "launch/commands/run_data.hpp"

#include <fmt/core.h>

#include <filesystem>
#include <string>

#include "data/files/shell_quote.hpp"
#include "data/token_file.hpp"
#include "launch/config/schema.hpp"
#include "tensor/error.hpp"
#include "trainer/agreement.hpp"

namespace switchyard {

std::int64_t vocab_size_of_data(const LoadedConfig& loaded) {
  const std::string& path = loaded.config.data.path;
  try {
    return TokenFile(path).vocab_size();
  } catch (const Error& error) {
    std::string problem =
        fmt::format("{} (data.path, {})", error.what(), loaded.origin_text(*find_key("data.path")));
    std::error_code ignored;
    if (!std::filesystem::exists(path, ignored))
      problem += fmt::format("; make it with `switchyard prepare TEXTS... --output {}`",
                             quote_for_shell(path));
    throw_error(error.code(), problem);
  }
}

}  // namespace switchyard
