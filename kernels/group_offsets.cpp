#include "kernels/group_offsets.hpp"

#include "kernels/check.hpp"
#include "kernels/cpu/group_offsets.hpp"
#include "kernels/cuda/group_offsets.hpp"
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

}  // namespace switchyard::kernels
