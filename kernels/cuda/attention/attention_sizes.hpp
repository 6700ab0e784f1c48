// Sizes of attention on a card, as plain functions of the host: a plan for a card asks for them
// where there is none.
#pragma once

#include "kernels/attention/attention.hpp"

namespace switchyard::kernels::cuda {

// Everything under way lies in registers and shared memory.
inline std::int64_t attention_workspace_bytes(const AttentionShape&, DType) {
  return 0;
}

}  // namespace switchyard::kernels::cuda
