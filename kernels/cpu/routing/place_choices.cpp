#include "kernels/cpu/routing/place_choices.hpp"

#include "tensor/error.hpp"

namespace switchyard::kernels::cpu {

void place_choices(const TensorView& indices, const ExpertPlaces& of_experts,
                   const TensorView& sequence_ids, std::int64_t sequences_of_share,
                   const TensorView& places) {
  const std::int64_t length = indices.rows() / sequence_ids.numel();
  const std::int64_t num_experts = std::ssize(of_experts.first) - 1;
  const std::span<const std::int64_t> ids = sequence_ids.span<std::int64_t>();
  for (std::int64_t t = 0; t < indices.rows(); ++t) {
    const std::int64_t share = ids[static_cast<std::size_t>(t / length)] / sequences_of_share;
    const std::int32_t* expert = indices.row<std::int32_t>(t);
    std::int32_t* place = places.row<std::int32_t>(t);
    for (std::int64_t j = 0; j < indices.cols(); ++j) {
      if (expert[j] == -1) {
        place[j] = -1;
        continue;
      }
      expect(0 <= expert[j] && expert[j] < num_experts, "experts within their range");
      const auto e = static_cast<std::size_t>(expert[j]);
      const std::int64_t first = of_experts.first[e], count = of_experts.first[e + 1] - first;
      place[j] = of_experts.places[static_cast<std::size_t>(first + share % count)];
    }
  }
}

}  // namespace switchyard::kernels::cpu
