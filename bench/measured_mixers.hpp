// Which mixers `switchyard bench mixer` measures of each kind, and how many pairs of tokens they
// see.
#pragma once

#include <string>
#include <vector>

#include "model/config.hpp"

namespace switchyard::bench {

// Of kind blocks every pattern.
struct Measured {
  std::string name;
  MixerConfig mixer;
};
std::vector<Measured> measured_of(MixerKind kind);

// Of kinds, those that it can measure.
bool is_measured_mixer(MixerKind kind);

// Of all heads, in a sequence that begins no document but its own.
double seen_pairs(const kernels::KeyPattern& pattern, std::int64_t length, std::int64_t num_heads);

}  // namespace switchyard::bench
