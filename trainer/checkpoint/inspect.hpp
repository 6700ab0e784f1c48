// What `switchyard checkpoint show|verify|diff` does, on one process. PATH is a checkpoint folder,
// or a run or checkpoints folder, which stands for its newest checkpoint.
#pragma once

#include <ostream>
#include <string>

#include "trainer/checkpoint/checkpoint.hpp"

namespace switchyard {

// The checkpoint folder that `path` stands for. CheckpointError if there is none.
std::string resolve_checkpoint(const std::string& path);

// State, layout, configuration, and a table of tensors with shapes, bytes and norms (of values and
// both moments).
void show_checkpoint(const std::string& path, std::ostream& out);

// Verifies every file. Prints one line; CheckpointError (exit 4) naming the file and what differs.
void verify_checkpoint(const std::string& path, Group& world, std::ostream& out);

// Largest absolute and relative difference by tensor and part. True if all are bitwise equal and
// the states are too.
bool diff_checkpoints(const std::string& first, const std::string& second, std::ostream& out);

}  // namespace switchyard
