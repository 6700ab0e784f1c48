#include "trainer/evaluation_run.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <iostream>
#include <optional>

#include "parallel/collective_error.hpp"
#include "trainer/agreement.hpp"
#include "trainer/checkpoint.hpp"
#include "trainer/run_setup.hpp"
#include "trainer/watchdog.hpp"

namespace switchyard {

namespace {

namespace fs = std::filesystem;

// The watchdog of an evaluation, in a folder of its own: a training or another evaluation may be at
// work in the same run. Without the right to write there, nothing is watched, and that is said.
class WatchedEvaluation {
 public:
  WatchedEvaluation(Group& world, CollectiveLog& collectives, const Config& config)
      : is_first_(world.rank() == 0) {
    std::string note;
    if (is_first_) note = prepare(world, config.run.output);
    world.broadcast_text(folder_, 0);
    if (!note.empty()) std::cerr << note << std::endl;
    if (folder_.empty()) return;
    run_together(world, [&] {
      watchdog_.emplace(collectives, world.topology(), config.watchdog, folder_, nullptr);
    });
  }
  ~WatchedEvaluation() {
    watchdog_.reset();
    std::error_code ignored;
    if (is_first_ && !folder_.empty() && !has_failed_) fs::remove_all(folder_, ignored);
  }
  WatchedEvaluation(const WatchedEvaluation&) = delete;
  WatchedEvaluation& operator=(const WatchedEvaluation&) = delete;

  void enter(RunSection section) {
    if (watchdog_) watchdog_->enter(section);
  }
  // All ranks have what they need of the files: they may go.
  void finish(Group& world) {
    watchdog_.reset();
    world.barrier();
  }
  // This rank alone has failed; the others need not report what follows from it.
  void fail(ExitCode code) {
    has_failed_ = true;
    if (watchdog_) watchdog_->claim_failure(static_cast<int>(code));
  }

 private:
  // A note for people if the folder cannot be made; then folder_ stays empty.
  std::string prepare(const Group& world, const std::string& run_folder) {
    const Topology& topology = world.topology();
    const std::string folder =
        fmt::format("{}/eval-{}-{}", run_folder, topology.name_of(topology.host_of(0)), getpid());
    try {
      fs::create_directories(folder);
      SideFiles::prepare(folder);
      folder_ = folder;
      return {};
    } catch (const std::exception& error) {
      return fmt::format("switchyard: no watchdog for this evaluation: {}", error.what());
    }
  }

  bool is_first_;
  bool has_failed_ = false;
  std::string folder_;
  std::optional<Watchdog> watchdog_;
};

void evaluate(Group& world, CollectiveLog& collectives, const Config& given,
              WatchedEvaluation& watched) {
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
  const TrainState state = load_checkpoint(*path, rank.trainer.store(), nullptr, world);
  rank.trainer.weights_changed();
  std::unique_ptr<FixedBatches> batches;
  run_together(world, [&] {
    batches = std::make_unique<FixedBatches>(*tokens, Split::valid, rank.trainer.batch_layout());
  });
  watched.enter(RunSection::evaluation);
  const EvaluationResult result = rank.trainer.evaluate(*batches, config.evaluate.num_batches);
  watched.finish(world);
  if (world.rank() != 0) return;
  std::cout << fmt::format("step {}  validation loss {}  perplexity {:.4f}  tokens {}\n",
                           state.step, result.loss, std::exp(result.loss), result.num_tokens);
}

}  // namespace

void run_evaluation(Group& world, CollectiveLog& collectives, const Config& config) {
  // A run that does not exist is told below; nothing is made in its place.
  run_together(world, [&] {
    if (world.rank() == 0 && !fs::is_directory(config.run.output))
      throw CheckpointError(
          fmt::format("run.output: {} is not a folder; train first", config.run.output));
  });
  WatchedEvaluation watched(world, collectives, config);
  try {
    evaluate(world, collectives, config, watched);
  } catch (const Error& error) {
    if (dynamic_cast<const KnownToAllRanks*>(&error) == nullptr) watched.fail(error.code());
    throw;
  } catch (const std::exception&) {
    watched.fail(ExitCode::internal);
    throw;
  }
}

}  // namespace switchyard
