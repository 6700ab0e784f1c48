// Sorts tokens by their number, stably (kernels/cuda/rows/embedding_sizes.hpp).
#pragma once

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/rows/embedding_sizes.hpp"

namespace switchyard::kernels::cuda {

// On the card: the sorted tokens, and where each was.
struct SortedTokens {
  const std::int32_t* keys;
  const std::int32_t* places;
};

// tokens: i32 [sort.num_tokens], each in [0, table_rows); scratch: sort.scratch_bytes(), into which
// the result points.
SortedTokens sort_tokens(const TokenSort& sort, const std::int32_t* tokens, std::int64_t table_rows,
                         std::byte* scratch, cudaStream_t stream);

}  // namespace switchyard::kernels::cuda
