#include "trainer/run/evaluation_run.hpp"

#include <fmt/core.h>

#include <cmath>
#include <filesystem>
#include <iostream>

#include "trainer/agreement.hpp"
#include "trainer/checkpoint/comparison.hpp"
#include "trainer/checkpoint/place.hpp"
#include "trainer/checkpoint/resume.hpp"
#include "trainer/run/run_setup.hpp"
#include "trainer/run_device.hpp"
#include "trainer/watch/temporary_watch.hpp"

namespace switchyard {

namespace {

namespace fs = std::filesystem;

// Where no checkpoint is named, the newest of the run.
const std::string& checkpoint_of(const Config& config) {
  return config.checkpoint.resume_choice() ? config.run.output : config.checkpoint.resume;
}

void evaluate(Group& world, CollectiveLog& collectives, const Config& given,
              const ConfigText& configuration, TemporaryWatch& watch) {
  std::unique_ptr<TokenFile> tokens;
  run_together(world, [&] { tokens = std::make_unique<TokenFile>(given.data.path); });
  set_threads(given.run, world);
  Config config = resolve_config(given, world.size(), *tokens);
  // No backward pass reads what layers leave, so they need not keep more than this policy does.
  config.activations = ActivationsConfig();
  config.activations.policy = LayerPolicy::recompute;
  config.capture = {};
  config.run.device = resolved_device(config, world);
  std::unique_ptr<Device> device = make_device_together(world, config);
  require_memory(world, config, make_plan(config, world.size(), tokens->vocab_size()));
  RankState rank(world, collectives, config, std::move(device), tokens->vocab_size());
  rank.device->profile().publish_to(collectives.place());
  const Report report = [&](const std::string& text) {
    if (world.rank() == 0) std::cerr << text << std::endl;
  };
  TrainState state;
  read_checkpoint(checkpoint_of(config), world, report, [&](const std::string& path) {
    compare_with_checkpoint(path, configuration, *tokens, ReadFor::evaluation, world, report);
    state = load_checkpoint(path, rank.trainer.store(), nullptr, world);
  });
  rank.trainer.weights_changed();
  std::unique_ptr<FixedBatches> batches;
  run_together(world, [&] {
    batches = std::make_unique<FixedBatches>(*tokens, Split::valid, rank.trainer.batch_layout(),
                                             config.evaluate.num_sequences);
  });
  watch.enter(RunSection::evaluation);
  const EvaluationResult result = rank.trainer.evaluate(*batches);
  if (world.rank() != 0) return;
  std::cout << fmt::format(
      "step {}  validation loss {}  perplexity {:.4f}{}  tokens {}\n", state.step, result.loss,
      std::exp(result.loss),
      result.accuracy ? fmt::format("  accuracy {:.4f}", *result.accuracy) : "", result.num_tokens);
}

}  // namespace

void run_evaluation(Group& world, CollectiveLog& collectives, const Config& config,
                    const ConfigText& configuration) {
  // A run that does not exist is told below; nothing is made in its place.
  const bool is_named = !config.checkpoint.resume_choice();
  run_together(world, [&] {
    if (world.rank() != 0) return;
    const std::string& output = config.run.output;
    if (is_named)
      require_named_checkpoint(config.checkpoint);
    else if (!fs::is_directory(output))
      throw CheckpointError(fmt::format("run.output: {} is not a folder; train first", output));
    else if (checkpoint_steps_in(output + "/checkpoints").empty())
      throw CheckpointError(fmt::format("run.output: {} holds no checkpoint; train first", output));
  });
  TemporaryWatch watch(world, collectives, config.watchdog,
                       is_named ? place_for_watch(world.topology()) : config.run.output, "eval");
  watch.run(world, [&] { evaluate(world, collectives, config, configuration, watch); });
}

}  // namespace switchyard
