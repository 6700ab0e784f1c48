// Where a run goes on or begins: the checkpoint that checkpoint.resume names (place.hpp) or, with
// auto, the newest valid one of the run; its tensors go into the trainer. What cannot be meant is
// refused: checkpoints of which none is valid, and what comparison.hpp refuses.
#pragma once

#include <optional>
#include <string>

#include "data/token_file.hpp"
#include "trainer/checkpoint/checkpoint.hpp"
#include "trainer/config_text.hpp"
#include "trainer/trainer.hpp"

namespace switchyard {

struct Resumed {
  TrainState state;
  std::string path;               // of the checkpoint
  std::vector<Ancestor> lineage;  // of the run that goes on
};

// CheckpointError if checkpoint.resume names no place of checkpoints: to be asked before anything
// of a run is made.
void require_named_checkpoint(const CheckpointConfig& config);

// Collective. `folder`: of the run's checkpoints; `configuration`, `tokens`, `arithmetic` (empty:
// not exact): of this run. None if the run starts from the beginning. CheckpointError: nothing
// valid though there are checkpoints, damage of the one that is named, or another model. On the
// layout that wrote the checkpoint, memory goes on as if the run had not stopped.
std::optional<Resumed> resume_run(const Config& config, const ConfigText& configuration,
                                  const TokenFile& tokens, const ArithmeticRecord& arithmetic,
                                  const std::string& folder, Trainer& trainer, Group& world,
                                  const Report& report);

// The same of checkpoint.start_from, for a run without checkpoints of its own.
void require_start(const CheckpointConfig& config);
// Collective, for a run that resume_run() leaves at its beginning. What checkpoint.start_with says
// of the checkpoint that checkpoint.start_from names goes into the trainer; none if none is named.
// `state` is where the run then stands: at its beginning, but with `all`. CheckpointError as above,
// or if the checkpoint has not what is to be taken.
std::optional<Resumed> start_run(const Config& config, const ConfigText& configuration,
                                 const TokenFile& tokens, Trainer& trainer, Group& world,
                                 const Report& report);

}  // namespace switchyard
