#include "trainer/run/generate.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <limits>

#include "model/decoder.hpp"
#include "model/sampling.hpp"
#include "tensor/error.hpp"
#include "trainer/placement/layer_placements.hpp"
#include "trainer/run_device.hpp"
#include "trainer/trainer.hpp"

namespace switchyard {

namespace {

std::vector<std::int32_t> prompt_tokens(const Tokenizer& tokenizer, const std::string& prompt,
                                        bool document_mask) {
  const std::vector<std::int32_t> text = tokenizer.encode(prompt);
  std::vector<std::int32_t> tokens = tokens_before_text(tokenizer, !text.empty(), document_mask);
  tokens.insert(tokens.end(), text.begin(), text.end());
  return tokens;
}

// How long prompt and continuation may become together, and why.
struct Room {
  std::int64_t length = std::numeric_limits<std::int32_t>::max();
  std::string reason = "positions are numbers of 32 bits";
};

// A layer that sees further back the longer a sequence is was trained up to sequence_length only.
Room room_of(const ModelConfig& model) {
  if (model.position.kind == PositionKind::absolute)
    return {model.sequence_length,
            fmt::format("the model has learned {} absolute positions", model.sequence_length)};
  for (std::int64_t layer = 0; layer < model.num_layers; ++layer) {
    if (!model.mixer_of_layer(layer).is_attention()) continue;
    const kernels::KeyPattern pattern = model.key_pattern_of_layer(layer);
    const std::int64_t window = pattern.window;
    const bool sees_far = pattern.globals > 0 || pattern.reaches_far();
    if (window > 0 && window <= model.sequence_length && !sees_far) continue;
    return {model.sequence_length,
            fmt::format("the model was trained on sequences of {} tokens, and layer {} {}",
                        model.sequence_length, layer,
                        window == 0             ? std::string("attends to all tokens before")
                        : pattern.reaches_far() ? "attends to tokens far before"
                        : pattern.globals > 0   ? "attends to the first tokens, however far"
                                              : fmt::format("has a window of {} tokens", window))};
  }
  return {};
}

// What is asked for if it fits behind the prompt; unasked, the default or as many as fit.
std::int64_t num_tokens_to_add(const GenerateOptions& options, std::int64_t prompt_length,
                               const Room& room) {
  const std::int64_t left = room.length - prompt_length;
  if (left < 1)
    throw ConfigError(
        fmt::format("the prompt has {} tokens (with the one that begins a document), and nothing "
                    "can follow: {}; give a shorter prompt",
                    prompt_length, room.reason));
  const std::int64_t wanted =
      options.num_tokens.value_or(std::min(left, GenerateOptions::default_num_tokens));
  if (wanted > left)
    throw ConfigError(fmt::format(
        "the prompt has {} tokens (with the one that begins a document) and --tokens asks for {} "
        "more, but {}; ask for at most {}",
        prompt_length, wanted, room.reason, left));
  return wanted;
}

// Prompt and tokens in the form that is asked for.
class Printer {
 public:
  Printer(const Tokenizer& tokenizer, GenerateOutput output,
          const std::function<void(const std::string&)>& on_text)
      : tokenizer_(tokenizer), output_(output), on_text_(on_text), characters_(tokenizer) {}

  void print_prompt(const std::string& text, const std::vector<std::int32_t>& tokens) {
    if (output_ != GenerateOutput::ids) return on_text_(text);
    for (const std::int32_t token : tokens) print(token);
  }
  void print(std::int32_t token) {
    if (output_ == GenerateOutput::ids) return on_text_(fmt::format("{}\n", token));
    on_text_(output_ == GenerateOutput::raw ? tokenizer_.token_bytes(token)
                                            : characters_.push(token));
  }
  void finish() {
    if (output_ == GenerateOutput::text) on_text_(characters_.finish() + "\n");
  }

 private:
  const Tokenizer& tokenizer_;
  GenerateOutput output_;
  const std::function<void(const std::string&)>& on_text_;
  StreamingDecoder characters_;
};

}  // namespace

void generate(const Config& given, const Tokenizer& tokenizer, const GenerateOptions& options,
              const std::function<void(const std::string&)>& on_text, const Report& report) {
  Config config = given;
  if (config.model.vocab_size == 0) config.model.vocab_size = tokenizer.vocab_size();
  if (config.model.vocab_size < tokenizer.vocab_size())
    throw CheckpointError(fmt::format(
        "{}: the model knows {} tokens, its tokenizer has {}: one of them was exchanged",
        options.checkpoint, config.model.vocab_size, tokenizer.vocab_size()));
  const std::vector<std::int32_t> prompt =
      prompt_tokens(tokenizer, options.prompt, config.data.document_mask);
  const auto prompt_length = static_cast<std::int64_t>(prompt.size());
  const Room room = room_of(config.model);
  const std::int64_t num_tokens = num_tokens_to_add(options, prompt_length, room);

  const std::unique_ptr<Group> world = make_local_group("world");
  config.run.device = resolved_device(config, *world);
  const std::unique_ptr<Device> device = make_run_device(config, *world);
  const Mesh mesh(*world, {.data = 1, .context = 1, .expert = 1});
  ParameterStore store(*device, mesh);
  const std::vector<Placement> placements =
      layer_placements(config, placement_of(config.experts, mesh.degree(Axis::expert)));
  Transformer model(store, placements, config.model, config.experts, compute_dtype(config.run),
                    static_cast<std::uint64_t>(config.run.seed), tokenizer.vocab_size());
  store.allocate();
  load_checkpoint(options.checkpoint, store, nullptr, *world);
  model.pack_weights();

  Decoder decoder(model, prompt_length + num_tokens);
  Printer printer(tokenizer, options.output, on_text);
  printer.print_prompt(options.prompt, prompt);
  std::span<const float> logits = decoder.append(prompt);
  bool has_ended = false;
  for (std::int64_t i = 0; i < num_tokens && !has_ended; ++i) {
    const double uniform = sampling_uniform(static_cast<std::uint64_t>(options.seed), 0,
                                            static_cast<std::uint64_t>(decoder.length()));
    const std::int32_t token = sample(logits, options.temperature, options.top_p, uniform);
    has_ended = token == tokenizer.end_of_document() ||
                std::ranges::find(options.end_tokens, token) != options.end_tokens.end();
    if (!has_ended || options.output == GenerateOutput::ids) printer.print(token);
    if (i == 0 && config.data.document_mask && options.prompt.empty()) decoder.clear();
    if (i + 1 < num_tokens && !has_ended) logits = decoder.append({&token, 1});
  }
  printer.finish();
  if (!has_ended && num_tokens < options.num_tokens.value_or(options.default_num_tokens))
    report(fmt::format("stopped after {} tokens: {}", num_tokens, room.reason));
}

}  // namespace switchyard
