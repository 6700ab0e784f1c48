// `switchyard bench ring`: causal attention of one sequence that the ranks of the job share,
// forward and backward, beside what one rank attains on the whole sequence in the same run.
#pragma once

#include <string>
#include <vector>

#include "bench/report.hpp"
#include "parallel/mesh.hpp"

namespace switchyard::bench {

struct RingOptions {
  std::vector<DType> precisions{DType::bf16};
  std::vector<std::int64_t> lengths{4096, 8192, 16384, 32768};
  std::int64_t num_heads = 8;
  std::int64_t num_kv_heads = 2;
  std::int64_t head_dim = 64;
  std::int64_t window = 0;   // 0: full
  std::int64_t ulysses = 1;  // divides the ranks; the others are the ring
  ContextMethod method = ContextMethod::ring;
  bool exact = false;  // with the bits of one rank; all_gather
  SequenceLayout layout = SequenceLayout::zigzag;
  Progress progress = Progress::poll;
};

// Collective. ConfigError if the ranks cannot share the heads or a length.
void run_ring(Group& world, const RingOptions& options, const Repeats& repeats,
              const Output& output);

}  // namespace switchyard::bench
