// How Hopper's copy engine finds a tile of a matrix: made on the host for each launch, given to the
// kernel by value.
#pragma once

#include <cuda.h>

#include "tensor/tensor.hpp"

namespace switchyard::kernels::cuda {

// Whether the engine can read a bf16 matrix as head vectors of head_dim elements: addresses and
// distances of rows and heads are multiples of 16 bytes, and there is something to read.
bool can_map_heads(const TensorView& view, std::int64_t head_dim);

// Of a bf16 matrix whose rows are num_sequences times `length`, each of some heads: tiles of
// `tile_rows` rows and 64 elements of a head, swizzled in 128 bytes; zeros behind a sequence's last
// row and a head's last element. Dims: element, head, row, sequence.
CUtensorMap head_map(const TensorView& view, std::int64_t num_sequences, std::int64_t length,
                     std::int64_t head_dim, int tile_rows);

}  // namespace switchyard::kernels::cuda
