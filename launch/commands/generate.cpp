// switchyard generate: text from a run's newest checkpoint, or from a checkpoint named.
#include <cmath>
#include <iostream>

#include "data/tokenizer.hpp"
#include "kernels/threads.hpp"
#include "launch/commands/commands.hpp"
#include "launch/config/config_file.hpp"
#include "launch/options.hpp"
#include "trainer/agreement.hpp"
#include "trainer/checkpoint/comparison.hpp"
#include "trainer/checkpoint/place.hpp"
#include "trainer/families/kept_files.hpp"
#include "trainer/run/generate.hpp"
#include "trainer/run/run_setup.hpp"

namespace switchyard {

int run_generate(const CommandContext& context) {
  GenerateOptions generation;
  std::vector<std::string> arguments;
  bool raw = false, ids = false;
  Options options(
      "generate", "RUN",
      "Prints text that a trained model continues from a prompt. RUN is a run's folder "
      "or one of checkpoints (the newest valid checkpoint is taken) or a checkpoint's.");
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

  const std::unique_ptr<Group> world = make_local_group("world");
  const Report report = [](const std::string& text) { std::cerr << text << '\n'; };
  read_checkpoint(arguments.front(), *world, report, [&](const std::string& path) {
    generation.checkpoint = path;
    generation.end_tokens = end_tokens_of(path);
    Config config;
    std::unique_ptr<Tokenizer> tokenizer;
    run_together(*world, [&] {
      const Manifest manifest = read_manifest(path);
      config = load_saved_config(manifest.configuration, path + "/" + manifest_name).config;
      tokenizer = tokenizer_of_checkpoint(path, config.data.path);
    });
    set_threads(config.run);
    generate(
        config, *tokenizer, generation,
        [](const std::string& text) { std::cout << text << std::flush; },
        [](const std::string& note) { std::cerr << "switchyard generate: " << note << '\n'; });
  });
  return 0;
}

}  // namespace switchyard
