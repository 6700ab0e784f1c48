// What a plan that does not fit into memory can do about it.
#pragma once

#include <cstdint>
#include <string>

#include "launch/config/config_file.hpp"

namespace switchyard {

// The smallest changes with which balanced routing fits into so many bytes a rank, each by itself:
// recomputation, smaller micro-batches, both, spilled activations, more ranks. Each is planned.
// Says so if none does. loaded: legal, with the vocabulary's size.
std::string remedies_text(const LoadedConfig& loaded, int num_ranks, std::int64_t vocab_size,
                          std::int64_t memory_bytes);

}  // namespace switchyard
