// `switchyard generate`: text from a checkpoint of any layout, on one rank.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "data/tokenizer.hpp"
#include "trainer/config.hpp"

namespace switchyard {

struct GenerateOptions {
  std::string checkpoint;  // a complete checkpoint's folder, verified
  std::string prompt;
  static constexpr std::int64_t default_num_tokens = 100;
  std::optional<std::int64_t> num_tokens = std::nullopt;  // none: the default, or as many as fit
  double temperature = 1.0;                               // 0: always the most probable token
  double top_p = 1.0;
  std::int64_t seed = 1;
};

// `config`: that of the checkpoint. Calls on_text with pieces of whole characters: first the
// prompt, then what is generated, until num_tokens or the end of the document. ConfigError if
// prompt and continuation exceed model.sequence_length, CheckpointError if model and tokenizer do
// not fit.
void generate(const Config& config, const Tokenizer& tokenizer, const GenerateOptions& options,
              const std::function<void(const std::string&)>& on_text);

}  // namespace switchyard
