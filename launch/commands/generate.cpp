// switchyard generate: text from a run's newest checkpoint, or from a checkpoint named.
#include <fmt/core.h>

#include <cmath>
#include <filesystem>
#include <iostream>

#include "data/tokenizer.hpp"
#include "kernels/threads.hpp"
#include "launch/commands/commands.hpp"
#include "launch/config/config_file.hpp"
#include "launch/options.hpp"
#include "trainer/checkpoint/checkpoint.hpp"
#include "trainer/checkpoint/kept_tokenizer.hpp"
#include "trainer/run/generate.hpp"
#include "trainer/run/run_setup.hpp"

namespace switchyard {

namespace {

namespace fs = std::filesystem;

// `path`: a run's folder, or a checkpoint's.
std::string find_checkpoint(const std::string& path) {
  const std::unique_ptr<Group> world = make_local_group("world");
  const Report report = [](const std::string& text) { std::cerr << text << '\n'; };
  if (fs::exists(fs::path(path) / manifest_name)) {
    const std::string damage = find_damage(path, *world, report);
    if (!damage.empty()) throw CheckpointError(damage);
    return path;
  }
  const std::string folder = path + "/checkpoints";
  if (!fs::is_directory(folder))
    throw CheckpointError(
        fmt::format("{} is neither a checkpoint nor a run's folder (which has a "
                    "subfolder checkpoints)",
                    path));
  const std::optional<std::string> newest = find_newest_valid(folder, *world, report);
  if (!newest)
    throw CheckpointError(fmt::format("{} holds no valid checkpoint; train first", folder));
  return *newest;
}

// The run keeps its tokenizer, so that text can be made without the corpus.
std::unique_ptr<Tokenizer> find_tokenizer(const std::string& checkpoint, const Config& config) {
  if (std::unique_ptr<Tokenizer> kept = kept_tokenizer(checkpoint)) return kept;
  return tokenizer_from_file(config.data.path);
}

}  // namespace

int run_generate(const CommandContext& context) {
  GenerateOptions generation;
  std::vector<std::string> arguments;
  bool raw = false, ids = false;
  Options options("generate", "RUN",
                  "Prints text that a trained model continues from a prompt. RUN is a run's folder "
                  "(its newest checkpoint is taken) or a checkpoint's.");
  options.add("prompt", "TEXT", generation.prompt, "how the text begins (default: nothing)")
      .add("tokens", "N", generation.num_tokens,
           "tokens to add (default 100, or as many as the model can)")
      .add("temperature", "T", generation.temperature, "0: the most probable token (default 1)")
      .add("top-p", "P", generation.top_p,
           "draw from the most probable tokens that reach P together (default 1)")
      .add("seed", "S", generation.seed, "the same seed gives the same text (default 1)")
      .add("raw", raw, "the bytes as they are, also those that are not UTF-8, and no line end")
      .add("ids", ids, "token ids, one a line, those of the prompt first")
      .arguments("RUN", arguments, 1, 1);
  if (!options.parse(context.arguments)) return 0;
  if (generation.num_tokens.value_or(1) < 1)
    throw UsageError("generate", "--tokens must be at least 1");
  if (!(generation.temperature >= 0) || std::isinf(generation.temperature))
    throw UsageError("generate", "--temperature must be a number of at least 0");
  if (raw && ids) throw UsageError("generate", "--raw and --ids exclude each other");
  if (raw) generation.output = GenerateOutput::raw;
  if (ids) generation.output = GenerateOutput::ids;
  if (generation.seed < 0) throw UsageError("generate", "--seed must be at least 0");
  if (!(generation.top_p > 0 && generation.top_p <= 1))
    throw UsageError("generate", "--top-p must be above 0 and at most 1");

  std::string path = arguments.front();
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  generation.checkpoint = find_checkpoint(path);
  const Manifest manifest = read_manifest(generation.checkpoint);
  const Config config =
      load_saved_config(manifest.configuration, generation.checkpoint + "/" + manifest_name).config;
  set_threads(config.run, 1);
  const std::unique_ptr<Tokenizer> tokenizer = find_tokenizer(generation.checkpoint, config);
  generate(
      config, *tokenizer, generation,
      [](const std::string& text) { std::cout << text << std::flush; },
      [](const std::string& note) { std::cerr << "switchyard generate: " << note << '\n'; });
  return 0;
}

}  // namespace switchyard
