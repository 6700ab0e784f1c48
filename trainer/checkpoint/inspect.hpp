// What `switchyard checkpoint show|verify|diff` does, on one process. PATH is any way
// to name a checkpoint (place.hpp); a folder of them stands for the newest by name.
#pragma once

#include <ostream>
#include <string>

#include "trainer/checkpoint/place.hpp"

namespace switchyard {

// State, layout, configuration, and a table of tensors with shapes, bytes and norms (of values and
// both moments).
void show_checkpoint(const std::string& path, std::ostream& out);

// A checksum of what the training has come to, as 16 hexadecimal digits: step, tokens and position
// in the data, and of every tensor, by name, its kind, shape, values and moments in the order of
// the whole tensor. Who wrote it on which ranks, the configuration and max_rows have no part in it,
// so equal states have equal digests. Reads blocks of a few MiB. CheckpointError.
std::string digest_of_checkpoint(const std::string& path);

// Verifies every file. Prints one line; CheckpointError (exit 4) naming the file and what differs.
void verify_checkpoint(const std::string& path, Group& world, std::ostream& out);

// Largest absolute and relative difference by tensor and part. True if all are bitwise equal and
// the states are too.
bool diff_checkpoints(const std::string& first, const std::string& second, std::ostream& out);

}  // namespace switchyard
