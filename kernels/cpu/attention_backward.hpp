// What the two passes of attention on the CPU tell each other.
#pragma once

#include "kernels/cpu/attention_blocks.hpp"

namespace switchyard::kernels::cpu {

// Scratch of one thread of the backward pass.
std::int64_t attention_backward_bytes(const AttentionBlocks& blocks);

// Threads for `num_tasks` tasks, as many as the workspace has places for.
int attention_threads(const AttentionShape& shape, DType dtype, const TensorView& workspace,
                      std::int64_t num_tasks);

}  // namespace switchyard::kernels::cpu
