// `switchyard bench mixer`: attention and recurrences over one sequence, forward and backward, and
// from how many tokens on a recurrence is the quicker one.
#pragma once

#include <vector>

#include "bench/measured_mixers.hpp"
#include "bench/report.hpp"
#include "model/config.hpp"

namespace switchyard::bench {

struct MixerOptions {
  std::vector<DType> precisions{DType::f32, DType::bf16};
  std::vector<MixerKind> kinds{MixerKind::full, MixerKind::linear, MixerKind::retention,
                               MixerKind::ssd,  MixerKind::delta,  MixerKind::gated_delta};
  std::vector<std::int64_t> lengths{256, 512, 1024, 2048, 4096};
  std::int64_t num_heads = 4;
  std::int64_t head_dim = 64;  // of queries, keys and values
  std::int64_t chunk = 64;     // tokens that a recurrence computes together
};

// Collective; each rank works on its own, all at once.
void run_mixer(Group& world, const MixerOptions& options, const Repeats& repeats,
               const Output& output);

}  // namespace switchyard::bench
