// How the rows of a product with a packed weight are cut into pieces. A piece has one of a few
// sizes, so that few primitives are made, and is computed by one thread.
#pragma once

#include <cstdint>

#include "tensor/dtype.hpp"

namespace switchyard::kernels::cpu {

// Whether a row's bits are the same in a short piece and in a full row block. oneDNN may split the
// sum over k by the number of rows (its AMX and its small fp32 products do), so this is tried once
// for a shape, on random operands, and remembered by the thread. If not, every piece is full.
bool short_pieces_keep_bits(std::int64_t k, std::int64_t n, DType operands, DType result);

// The size of the pieces that share `rows` out most evenly between `num_threads`.
std::int64_t even_piece(std::int64_t rows, int num_threads);

// The next piece of `rows` rows: the largest size that fits, or the smallest one of all.
std::int64_t next_piece(std::int64_t rows);

}  // namespace switchyard::kernels::cpu
