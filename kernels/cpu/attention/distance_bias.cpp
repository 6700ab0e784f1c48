#include "kernels/cpu/attention/distance_bias.hpp"

namespace switchyard::kernels::cpu {

void spread_buckets(const TensorView& table, std::span<const std::int32_t> buckets,
                    const TensorView& values) {
  for (std::int64_t h = 0; h < values.rows(); ++h)
    for (std::int64_t d = 0; d < values.cols(); ++d)
      values.row<float>(h)[d] = table.row<float>(h)[buckets[static_cast<std::size_t>(d)]];
}

}  // namespace switchyard::kernels::cpu
