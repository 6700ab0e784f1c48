#include "trainer/checkpoint/resume.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <filesystem>

#include "trainer/agreement.hpp"
#include "trainer/checkpoint/comparison.hpp"
#include "trainer/checkpoint/place.hpp"
#include "trainer/plan.hpp"

namespace switchyard {

namespace {

// Nothing valid was found. Starting anew would in time replace what somebody may still mend.
void refuse_damaged(const std::string& folder, Group& world) {
  run_together(world, [&] {
    std::error_code none;
    for (const auto& entry : std::filesystem::directory_iterator(folder, none))
      if (step_of_folder_name(entry.path().filename().string()) >= 0)
        throw CheckpointError(
            fmt::format("{} holds checkpoints, but none of them is valid (see above); mend or "
                        "remove them, or begin anew with another run.output",
                        folder));
  });
}

void restore_capacity(const Manifest& manifest, const Config& config, Trainer& trainer,
                      const Group& world) {
  const bool same_layout = manifest.num_ranks == world.size() &&
                           manifest.layout.data == config.parallel.data &&
                           manifest.layout.expert == config.parallel.expert;
  if (same_layout)
    trainer.reserve_rows(std::min(manifest.state.max_rows, worst_case_rows(config, world.size())));
}

void require_place(const char* key, const std::string& path) {
  try {
    place_of_checkpoint(path);
  } catch (const CheckpointError& error) {
    throw CheckpointError(fmt::format("{}: {}", key, error.what()));
  }
}

}  // namespace

void require_named_checkpoint(const CheckpointConfig& config) {
  if (!config.resume_choice()) require_place("checkpoint.resume", config.resume);
}

void require_start(const CheckpointConfig& config) {
  if (config.starts_from()) require_place("checkpoint.start_from", config.start_from);
}

std::optional<Resumed> resume_run(const Config& config, const ConfigText& configuration,
                                  const TokenFile& tokens, const ArithmeticRecord& arithmetic,
                                  const std::string& folder, Trainer& trainer, Group& world,
                                  const Report& report) {
  if (config.checkpoint.resume_choice() == Resume::never) return std::nullopt;
  Resumed resumed;
  const ReadCheckpoint read = [&](const std::string& path) {
    compare_with_checkpoint(path, configuration, tokens, ReadFor::training, world, report,
                            parse_mixture(config.data.mixture));
    const TrainState state = load_checkpoint(path, trainer.store(), &trainer.optimizer(), world);
    resumed = {state, path, {}};
  };
  if (!config.checkpoint.resume_choice()) {
    read_checkpoint(config.checkpoint.resume, world, report, read);
  } else if (!read_newest_valid(folder, world, report, read)) {
    refuse_damaged(folder, world);
    return std::nullopt;
  }
  trainer.weights_changed();
  trainer.count_earlier_updates(resumed.state.earlier_updates);
  const Manifest manifest = read_manifest(resumed.path);
  resumed.lineage = manifest.lineage;
  restore_capacity(manifest, config, trainer, world);
  const std::string changed = changed_arithmetic(manifest.arithmetic, arithmetic);
  if (config.numerics.exact && world.rank() == 0 && report && !changed.empty()) report(changed);
  return resumed;
}

std::optional<Resumed> start_run(const Config& config, const ConfigText& configuration,
                                 const TokenFile& tokens, Trainer& trainer, Group& world,
                                 const Report& report) {
  const StartWith take = config.checkpoint.start_with;
  if (!config.checkpoint.starts_from()) return std::nullopt;
  Resumed started;
  read_checkpoint(config.checkpoint.start_from, world, report, [&](const std::string& path) {
    compare_with_checkpoint(path, configuration, tokens, ReadFor::training, world, report,
                            parse_mixture(config.data.mixture));
    started.state = load_checkpoint(
        path, trainer.store(), take == StartWith::weights ? nullptr : &trainer.optimizer(), world);
    started.path = path;
  });
  const Manifest manifest = read_manifest(started.path);
  const TrainState& before = manifest.state;
  started.lineage = manifest.lineage;
  started.lineage.push_back({std::filesystem::absolute(started.path).lexically_normal().string(),
                             manifest.course, before.step, before.num_tokens,
                             std::string(name_of(take))});
  if (take != StartWith::all) started.state = {};
  if (take == StartWith::weights_and_moments)
    started.state.earlier_updates = before.step + before.earlier_updates;
  trainer.weights_changed();
  trainer.count_earlier_updates(started.state.earlier_updates);
  if (take == StartWith::all) restore_capacity(manifest, config, trainer, world);
  return started;
}

}  // namespace switchyard
