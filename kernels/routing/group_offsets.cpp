#include "kernels/routing/group_offsets.hpp"

#include "kernels/check.hpp"
#include "kernels/cpu/routing/group_offsets.hpp"
#include "kernels/cuda/routing/group_offsets.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/plan/loops.hpp"

namespace switchyard::kernels {

void group_offsets(const TensorView& counts, const TensorView& offsets) {
  const std::int64_t num_groups = offsets.numel() - 1;
  expect_vector(offsets, DType::i32, num_groups + 1, "offsets: i32 [groups + 1]");
  expect(num_groups >= 0 && counts.dtype == DType::i32 && counts.is_contiguous() &&
             counts.shape[counts.shape.num_dims() - 1] == num_groups,
         "counts: i32 [groups] or [sources, groups]");
  dispatch(
      *offsets.device, [&] { cpu::group_offsets(counts, offsets); },
      [&] { plan::group_offsets(counts, offsets); }, [&] { cuda::group_offsets(counts, offsets); });
}

void count_by_unit(const TensorView& indices, std::span<const std::int32_t> place_of_expert,
                   std::int64_t unit_rows, const TensorView& counts) {
  expect(indices.dtype == DType::i32 && unit_rows > 0 && indices.rows() % unit_rows == 0,
         "indices i32 [T, k] of whole units");
  expect_matrix(counts, DType::i32, counts.rows(), indices.rows() / unit_rows,
                "counts i32 [places, units]");
  dispatch(
      *counts.device, [&] { cpu::count_by_unit(indices, place_of_expert, unit_rows, counts); },
      [&] { plan::group_offsets(indices, counts); }, no_exact_sums_on_cards);
}

void unit_offsets(const TensorView& counts, std::span<const std::int32_t> order,
                  const TensorView& offsets) {
  expect(counts.dtype == DType::i32 && counts.is_contiguous() && counts.shape.num_dims() == 3 &&
             std::ssize(order) == counts.shape[0] * counts.shape[2],
         "counts i32 [sources, groups, units], and an order of all units");
  expect_vector(offsets, DType::i32, counts.numel() + 1, "offsets i32 [groups * all units + 1]");
  dispatch(
      *offsets.device, [&] { cpu::unit_offsets(counts, order, offsets); },
      [&] { plan::group_offsets(counts, offsets); }, no_exact_sums_on_cards);
}

}  // namespace switchyard::kernels
