// `switchyard generate`: text from a checkpoint of any layout, on one rank.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "data/tokenizer.hpp"
#include "trainer/checkpoint/checkpoint.hpp"
#include "trainer/config.hpp"

namespace switchyard {

// text: whole characters, U+FFFD for bytes that are none. raw: the bytes of the tokens as they are.
// ids: the tokens' numbers, one a line.
enum class GenerateOutput : std::uint8_t { text, raw, ids };

struct GenerateOptions {
  std::string checkpoint;  // a complete checkpoint's folder, verified
  std::string prompt;
  static constexpr std::int64_t default_num_tokens = 100;
  std::optional<std::int64_t> num_tokens = std::nullopt;  // none: the default, or as many as fit
  double temperature = 1.0;                               // 0: always the most probable token
  double top_p = 1.0;
  std::int64_t seed = 1;
  GenerateOutput output = GenerateOutput::text;
  std::vector<std::int32_t> end_tokens{};  // beside the tokenizer's end of a document
};

// `config`: that of the checkpoint. Calls on_text with pieces of output: first the prompt (as ids:
// with what stands before it: data/tokenizer.hpp), then what is generated, until num_tokens or a
// token that ends the text (which ids show). Where every layer attends to a window of at most
// model.sequence_length tokens, the sequence may become longer than that; else ConfigError if the
// prompt and what is asked for exceed it, and a report if they end there unasked. CheckpointError
// if model and tokenizer do not fit.
void generate(const Config& config, const Tokenizer& tokenizer, const GenerateOptions& options,
              const std::function<void(const std::string&)>& on_text, const Report& report);

}  // namespace switchyard
