// Kernels of the router give a token to a warp and its experts to the warp's lanes, in turn.
#pragma once

#include <cstdint>
#include <type_traits>

namespace switchyard::kernels::cuda {

// call(std::integral_constant<int, n>) for the smallest n for which 32 n cover the experts: rows
// that a warp keeps in registers. 0 for longer ones, which are read again.
template <class Call>
void with_experts_per_lane(std::int64_t num_experts, Call call) {
  if (num_experts <= 32) return call(std::integral_constant<int, 1>{});
  if (num_experts <= 64) return call(std::integral_constant<int, 2>{});
  if (num_experts <= 128) return call(std::integral_constant<int, 4>{});
  if (num_experts <= 256) return call(std::integral_constant<int, 8>{});
  call(std::integral_constant<int, 0>{});
}

}  // namespace switchyard::kernels::cuda
