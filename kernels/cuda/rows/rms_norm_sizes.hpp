// Sizes of the CUDA twins of kernels/rows/rms_norm.hpp, for plans too: no CUDA here.
#pragma once

#include <algorithm>
#include <cstdint>

namespace switchyard::kernels::cuda {

// The gradient of the weight is summed over so many runs of rows, each by a block of threads of its
// own, and then over the runs in order. Enough to fill a card (132 processors have Hopper's); more
// for narrow rows, whose blocks are small.
inline std::int64_t rms_norm_row_chunks(std::int64_t hidden) {
  constexpr std::int64_t fewest = 256, most = 2048, elements = std::int64_t{1} << 20;
  return std::clamp(elements / std::max<std::int64_t>(1, hidden), fewest, most);
}

}  // namespace switchyard::kernels::cuda
