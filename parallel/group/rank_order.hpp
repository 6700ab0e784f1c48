// Reductions in rank order: element by element, the operand of rank 0 first, then rank 1, and so
// on. The result is a function of the operands alone, so it has the same bits on every rank and in
// every run, whichever message came first.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "parallel/group/group.hpp"

namespace switchyard {

// sources[p]: `numel` elements of rank p's operand, of type f32, f64, i32 or i64. `result` may be
// one of the sources (this rank's own). max and min of a NaN are NaN.
void reduce_in_rank_order(std::span<const std::byte* const> sources, std::byte* result,
                          std::int64_t numel, DType dtype, ReduceOp op);

}  // namespace switchyard
