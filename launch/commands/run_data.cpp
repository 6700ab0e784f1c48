#include "launch/commands/run_data.hpp"

#include <fmt/core.h>

#include <filesystem>
#include <string>

#include "data/files/shell_quote.hpp"
#include "data/mixture.hpp"
#include "data/token_file.hpp"
#include "launch/config/schema.hpp"
#include "tensor/error.hpp"
#include "trainer/agreement.hpp"

namespace switchyard {

namespace {

// The token file that a key names, whose error tells the key and its place.
TokenFile open_corpus(const LoadedConfig& loaded, const char* key, const std::string& path) {
  try {
    return TokenFile(path);
  } catch (const Error& error) {
    std::string problem =
        fmt::format("{} ({}, {})", error.what(), key, loaded.origin_text(*find_key(key)));
    std::error_code ignored;
    if (!std::filesystem::exists(path, ignored))
      problem += fmt::format("; make it with `switchyard prepare TEXTS... --output {}`",
                             quote_for_shell(path));
    throw_error(error.code(), problem);
  }
}

}  // namespace

std::int64_t vocab_size_of_data(const LoadedConfig& loaded) {
  const DataConfig& data = loaded.config.data;
  const TokenFile named = open_corpus(loaded, "data.path", data.path);
  bool has_mask = named.has_loss_mask();
  for (const MixtureEntry& entry : parse_mixture(data.mixture)) {
    const TokenFile corpus = open_corpus(loaded, "data.mixture", entry.path);
    require_same_tokenizer(corpus, named);
    has_mask = has_mask || corpus.has_loss_mask();
  }
  if (data.loss_mask && !has_mask)
    throw ConfigError(
        fmt::format("data.loss_mask ({}) is true, and {} has no loss mask; make one with "
                    "`switchyard prepare --prompt-field`, or write loss_mask: false",
                    loaded.origin_text(*find_key("data.loss_mask")),
                    data.mixture == "none" ? data.path : "no file of data.mixture"));
  return named.vocab_size();
}

}  // namespace switchyard
