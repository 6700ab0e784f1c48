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

}  // namespace

void require_named_checkpoint(const CheckpointConfig& config) {
  if (config.resume_choice()) return;
  try {
    place_of_checkpoint(config.resume);
  } catch (const CheckpointError& error) {
    throw CheckpointError(fmt::format("checkpoint.resume: {}", error.what()));
  }
}

std::optional<Resumed> resume_run(const Config& config, const ConfigText& configuration,
                                  const TokenFile& tokens, const ArithmeticRecord& arithmetic,
                                  const std::string& folder, Trainer& trainer, Group& world,
                                  const Report& report) {
  if (config.checkpoint.resume_choice() == Resume::never) return std::nullopt;
  Resumed resumed;
  const ReadCheckpoint read = [&](const std::string& path) {
    compare_with_checkpoint(path, configuration, tokens, ReadFor::training, world, report);
    const TrainState state = load_checkpoint(path, trainer.store(), &trainer.optimizer(), world);
    resumed = {state, path};
  };
  if (!config.checkpoint.resume_choice()) {
    read_checkpoint(config.checkpoint.resume, world, report, read);
  } else if (!read_newest_valid(folder, world, report, read)) {
    refuse_damaged(folder, world);
    return std::nullopt;
  }
  trainer.weights_changed();
  const Manifest manifest = read_manifest(resumed.path);
  restore_capacity(manifest, config, trainer, world);
  const std::string changed = changed_arithmetic(manifest.arithmetic, arithmetic);
  if (config.numerics.exact && world.rank() == 0 && report && !changed.empty()) report(changed);
  return resumed;
}

}  // namespace switchyard
