// `switchyard bench attention`: causal attention with grouped queries, forward and backward.
#pragma once

#include <vector>

#include "bench/report.hpp"

namespace switchyard::bench {

struct AttentionSize {
  std::int64_t num_sequences = 0;
  std::int64_t length = 0;
  std::int64_t num_heads = 0;
  std::int64_t num_kv_heads = 0;  // divides num_heads
  std::int64_t head_dim = 0;
};

struct AttentionOptions {
  std::vector<DType> precisions{DType::f32, DType::bf16};
  std::vector<AttentionSize> sizes{
      {8, 1024, 8, 4, 64},   // configs/bench/moe_216m.yaml
      {16, 256, 8, 8, 64},   // short sequences
      {2, 2048, 16, 4, 64},  // longer ones, four heads to a key
      {1, 4096, 8, 2, 128},  // wide heads
      {1, 8192, 8, 2, 64},   // one long sequence, four heads to a key
      {1, 8192, 8, 2, 128},  // the same with wide heads
      {1, 8192, 8, 8, 64},   // and with a key for each head
  };
};

// Collective; each rank works on its own, all at once.
void run_attention(Group& world, const AttentionOptions& options, const Repeats& repeats,
                   const Output& output);

}  // namespace switchyard::bench
