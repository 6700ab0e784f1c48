// What the two passes of attention on the CPU tell each other.
#pragma once

#include "kernels/cpu/attention/attention_blocks.hpp"

namespace switchyard::kernels::cpu {

// The workspace: a part that all threads share, then one for each thread. Bytes.
struct WorkspaceSizes {
  std::int64_t shared = 0;
  std::int64_t per_thread = 0;
};
WorkspaceSizes attention_backward_sizes(const AttentionBlocks& blocks);   // of the backward pass
WorkspaceSizes attention_workspace_sizes(const AttentionBlocks& blocks);  // of both passes

// Threads for `num_tasks` tasks, as many as the workspace has places for.
int attention_threads(const AttentionBlocks& blocks, const TensorView& workspace,
                      std::int64_t num_tasks);

}  // namespace switchyard::kernels::cpu
