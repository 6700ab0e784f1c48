#include "kernels/routing/place_choices.hpp"

#include "kernels/check.hpp"
#include "kernels/cpu/routing/place_choices.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/plan/loops.hpp"

namespace switchyard::kernels {

void place_choices(const TensorView& indices, const ExpertPlaces& of_experts,
                   const TensorView& sequence_ids, std::int64_t sequences_of_share,
                   const TensorView& places) {
  if (indices.empty()) return;
  expect(indices.dtype == DType::i32, "indices i32 [T, k]");
  expect_matrix(places, DType::i32, indices.rows(), indices.cols(), "places i32 [T, k]");
  expect_vector(sequence_ids, DType::i64, sequence_ids.numel(), "sequence_ids i64 [S]");
  expect(sequences_of_share >= 1 && sequence_ids.numel() > 0 &&
             indices.rows() % sequence_ids.numel() == 0,
         "as many tokens of each sequence");
  dispatch(
      *places.device,
      [&] { cpu::place_choices(indices, of_experts, sequence_ids, sequences_of_share, places); },
      [&] { plan::place_choices(places); });
}

}  // namespace switchyard::kernels
