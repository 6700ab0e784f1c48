// Where a run goes on: the checkpoint that checkpoint.resume names or, with auto, the newest valid
// one of the run; its tensors go into the trainer. What cannot be meant is refused: checkpoints of
// which none is valid, and one of a model that reads the same shapes in another way.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "trainer/checkpoint/checkpoint.hpp"
#include "trainer/trainer.hpp"

namespace switchyard {

struct Resumed {
  TrainState state;
  std::string path;  // of the checkpoint
};

// CheckpointError if checkpoint.resume names a folder that is not there: to be asked before
// anything of a run is made.
void require_named_checkpoint(const CheckpointConfig& config);

// Collective. `folder`: of the run's checkpoints; `effective_yaml`: of this run. None if the run
// starts from the beginning. CheckpointError: nothing valid though there are checkpoints, damage of
// the one that is named, or another model. On the layout that wrote the checkpoint, memory goes on
// as if the run had not stopped.
std::optional<Resumed> resume_run(const Config& config, const std::string& effective_yaml,
                                  const std::string& folder, Trainer& trainer, Group& world,
                                  const Report& report);

// A key of the sections model, experts and data, or run.seed or run.precision, that the
// checkpoint's configuration has otherwise.
struct ChangedKey {
  std::string path;  // "model.rope_scaling.factor"
  std::string saved, now;
  friend bool operator==(const ChangedKey&, const ChangedKey&) = default;
};
// Of two effective configurations, as `switchyard config` prints them, in the order of `now`. Keys
// that only one of them has are left out: they came or went with a version of the program.
std::vector<ChangedKey> changed_keys(std::string_view saved, std::string_view now);

}  // namespace switchyard
