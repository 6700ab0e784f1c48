// Sums over ranks of what arrived from other cards, in rank order: the same bits as
// parallel/group/rank_order.hpp on the host.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/dtype.hpp"
#include "tensor/stream.hpp"

namespace switchyard::kernels::cuda {

enum class RankReduction : std::uint8_t { sum, max, min };

// One operand a rank, of which this rank's is its own.
struct RankOperands {
  std::byte* own = nullptr;           // [numel], takes the result
  const std::byte* others = nullptr;  // [size - 1, numel]: the other ranks', in their order
  std::int64_t numel = 0;
  DType dtype = DType::f32;  // f32, f64, i32 or i64
  int rank = 0;
  int size = 1;
};

// Put on `stream`, a stream of the card that holds the operands. With max and min a NaN wins.
void reduce_in_rank_order(Stream& stream, const RankOperands& operands, RankReduction op);

}  // namespace switchyard::kernels::cuda
