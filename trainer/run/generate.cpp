#include "trainer/run/generate.hpp"

#include <fmt/core.h>

#include <algorithm>

#include "model/decoder.hpp"
#include "model/sampling.hpp"
#include "tensor/error.hpp"
#include "trainer/checkpoint/checkpoint.hpp"
#include "trainer/trainer.hpp"

namespace switchyard {

namespace {

// A prompt is one document's beginning, so it stands behind the end of another, which a model
// trained with a document mask has never seen from here: it then stands alone if there is no text.
std::vector<std::int32_t> prompt_tokens(const Tokenizer& tokenizer, const std::string& prompt,
                                        bool document_mask) {
  std::vector<std::int32_t> tokens = {tokenizer.end_of_document()};
  std::vector<std::int32_t> text = tokenizer.encode(prompt);
  if (document_mask && !text.empty()) return text;
  tokens.insert(tokens.end(), text.begin(), text.end());
  return tokens;
}

// What is asked for if it fits behind the prompt; unasked, the default or as many as fit.
std::int64_t num_tokens_to_add(const GenerateOptions& options, std::int64_t prompt_length,
                               std::int64_t sequence_length) {
  const std::int64_t room = sequence_length - prompt_length;
  if (room < 1)
    throw ConfigError(fmt::format(
        "the prompt has {} tokens (with the one that begins a document), and the model was trained "
        "on sequences of {}: nothing can follow; give a shorter prompt",
        prompt_length, sequence_length));
  const std::int64_t wanted =
      options.num_tokens.value_or(std::min(room, GenerateOptions::default_num_tokens));
  if (wanted > room)
    throw ConfigError(fmt::format(
        "the prompt has {} tokens (with the one that begins a document) and --tokens asks for {} "
        "more, but the model was trained on sequences of {} tokens; ask for at most {}",
        prompt_length, wanted, sequence_length, room));
  return wanted;
}

}  // namespace

void generate(const Config& given, const Tokenizer& tokenizer, const GenerateOptions& options,
              const std::function<void(const std::string&)>& on_text) {
  Config config = given;
  if (config.model.vocab_size == 0) config.model.vocab_size = tokenizer.vocab_size();
  if (config.model.vocab_size < tokenizer.vocab_size())
    throw CheckpointError(fmt::format(
        "{}: the model knows {} tokens, its tokenizer has {}: one of them was exchanged",
        options.checkpoint, config.model.vocab_size, tokenizer.vocab_size()));
  const std::vector<std::int32_t> prompt =
      prompt_tokens(tokenizer, options.prompt, config.data.document_mask);
  const auto prompt_length = static_cast<std::int64_t>(prompt.size());
  const std::int64_t num_tokens =
      num_tokens_to_add(options, prompt_length, config.model.sequence_length);

  const std::unique_ptr<Group> world = make_local_group("world");
  const std::unique_ptr<Device> device = make_cpu_device();
  const Mesh mesh(*world, {.data = 1, .context = 1, .expert = 1});
  ParameterStore store(*device, mesh);
  Transformer model(store, config.model, config.experts, compute_dtype(config.run),
                    static_cast<std::uint64_t>(config.run.seed), tokenizer.vocab_size());
  store.allocate();
  load_checkpoint(options.checkpoint, store, nullptr, *world);
  model.pack_weights();

  Decoder decoder(model, prompt_length + num_tokens);
  StreamingDecoder text(tokenizer);
  on_text(options.prompt);
  std::span<const float> logits = decoder.append(prompt);
  for (std::int64_t i = 0; i < num_tokens; ++i) {
    const double uniform = sampling_uniform(static_cast<std::uint64_t>(options.seed), 0,
                                            static_cast<std::uint64_t>(decoder.length()));
    const std::int32_t token = sample(logits, options.temperature, options.top_p, uniform);
    if (token == tokenizer.end_of_document()) break;
    on_text(text.push(token));
    if (i == 0 && config.data.document_mask && options.prompt.empty()) decoder.clear();
    if (i + 1 < num_tokens) logits = decoder.append({&token, 1});
  }
  on_text(text.finish());
}

}  // namespace switchyard
