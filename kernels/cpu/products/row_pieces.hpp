// How the rows of a product with a packed weight are cut into pieces. A piece has one of a few
// sizes, so that few primitives are made, and is computed by one thread.
#pragma once

#include <cstdint>

#include "tensor/dtype.hpp"

namespace switchyard::kernels::cpu {

// Short enough that a block of rows feeds many threads, long enough that a piece reads the weights
// for a good deal of work.
inline constexpr std::int64_t row_piece = 64;

// Whether a row's bits are the same in pieces of all sizes. oneDNN may split the sum over k by the
// number of rows (its AMX products do, and those in fp32 of 32 rows with AVX2), so this is tried
// once for a shape, on random operands, and remembered by the thread. If not, every piece has
// row_piece rows, the last one padded: one length for everybody, so that a row's bits do not depend
// on how many rows come with it. b_packed: whether the weight is packed, or [k, n] in fp32.
bool short_pieces_keep_bits(std::int64_t k, std::int64_t n, DType operands, DType result,
                            bool b_packed);

// Where short pieces keep bits: the longest pieces of which `num_threads` have several each.
std::int64_t shared_piece(std::int64_t rows, int num_threads);

// The next piece of `rows` rows: the largest size that fits, or the smallest one of all.
std::int64_t next_piece(std::int64_t rows);

}  // namespace switchyard::kernels::cpu
