// How Hopper's copy engine finds a tile of a matrix: made on the host for each launch, given to the
// kernel by value.
#pragma once

#include <cuda.h>

#include "tensor/tensor.hpp"

namespace switchyard::kernels::cuda {

// Whether the engine can read rows of this view: addresses and distances of rows are multiples of
// 16 bytes, and there is something to read.
bool can_map_tiles(const TensorView& view);

// Of a bf16 matrix whose rows are num_sequences times `length`: tiles of `tile_rows` rows and 64
// columns, swizzled in 128 bytes; zeros behind a sequence's last row.
CUtensorMap tile_map(const TensorView& view, std::int64_t num_sequences, std::int64_t length,
                     int tile_rows);

}  // namespace switchyard::kernels::cuda
