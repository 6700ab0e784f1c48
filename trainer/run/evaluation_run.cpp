#include "trainer/run/evaluation_run.hpp"

#include <fmt/core.h>

#include <cmath>
#include <filesystem>
#include <iostream>
#include <optional>

#include "parallel/group/collective_error.hpp"
#include "trainer/agreement.hpp"
#include "trainer/checkpoint/checkpoint.hpp"
#include "trainer/checkpoint/kept_tokenizer.hpp"
#include "trainer/run/run_setup.hpp"
#include "trainer/watch/temporary_watch.hpp"

namespace switchyard {

namespace {

namespace fs = std::filesystem;

void evaluate(Group& world, CollectiveLog& collectives, const Config& given,
              TemporaryWatch& watch) {
  std::unique_ptr<TokenFile> tokens;
  run_together(world, [&] { tokens = std::make_unique<TokenFile>(given.data.path); });
  set_threads(given.run, world);
  Config config = resolve_config(given, world.size(), *tokens);
  // No backward pass reads what layers leave, so they need not keep more than this policy does.
  config.activations = ActivationsConfig();
  config.activations.policy = "recompute";
  config.capture = {};
  require_memory(world, make_plan(config, world.size(), tokens->vocab_size()));
  RankState rank(world, config, tokens->vocab_size());
  rank.device->profile().publish_to(collectives.place());
  const Report report = [&](const std::string& text) {
    if (world.rank() == 0) std::cerr << text << std::endl;
  };
  const std::string folder = config.run.output + "/checkpoints";
  const std::optional<std::string> path = find_newest_valid(folder, world, report);
  if (!path)
    throw Collective<CheckpointError>(
        fmt::format("{} holds no valid checkpoint; train first", folder));
  require_same_tokenizer(*path, *tokens, world);
  const TrainState state = load_checkpoint(*path, rank.trainer.store(), nullptr, world);
  rank.trainer.weights_changed();
  std::unique_ptr<FixedBatches> batches;
  run_together(world, [&] {
    batches = std::make_unique<FixedBatches>(*tokens, Split::valid, rank.trainer.batch_layout(),
                                             config.evaluate.num_sequences);
  });
  watch.enter(RunSection::evaluation);
  const EvaluationResult result = rank.trainer.evaluate(*batches);
  if (world.rank() != 0) return;
  std::cout << fmt::format("step {}  validation loss {}  perplexity {:.4f}  tokens {}\n",
                           state.step, result.loss, std::exp(result.loss), result.num_tokens);
}

}  // namespace

void run_evaluation(Group& world, CollectiveLog& collectives, const Config& config) {
  // A run that does not exist is told below; nothing is made in its place.
  run_together(world, [&] {
    if (world.rank() != 0) return;
    const std::string& output = config.run.output;
    if (!fs::is_directory(output))
      throw CheckpointError(fmt::format("run.output: {} is not a folder; train first", output));
    if (checkpoint_steps_in(output + "/checkpoints").empty())
      throw CheckpointError(fmt::format("run.output: {} holds no checkpoint; train first", output));
  });
  TemporaryWatch watch(world, collectives, config.watchdog, config.run.output, "eval");
  watch.run(world, [&] { evaluate(world, collectives, config, watch); });
}

}  // namespace switchyard
