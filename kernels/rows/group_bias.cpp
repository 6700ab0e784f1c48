#include "kernels/rows/group_bias.hpp"

#include "kernels/check.hpp"
#include "kernels/cpu/rows/group_bias.hpp"
#include "kernels/cuda/rows/group_bias.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/plan/loops.hpp"
#include "kernels/rows/elementwise.hpp"

namespace switchyard::kernels {

void add_group_bias(const TensorView& bias, const TensorView& offsets, const TensorView& y) {
  if (y.empty()) return;
  expect(is_float(y.dtype), "y of type f32 or bf16");
  expect_matrix(bias, y.dtype, bias.rows(), y.cols(), "bias [groups, N] like y");
  if (offsets.device == nullptr) {
    expect(bias.rows() == 1, "offsets, unless there is one group");
    TensorView same_row = bias;
    same_row.shape = y.shape;
    same_row.row_stride = 0;
    return add(y, same_row, y);
  }
  expect_vector(offsets, DType::i32, bias.rows() + 1, "offsets i32 [groups + 1]");
  dispatch(
      *y.device, [&] { cpu::add_group_bias(bias, offsets, y); },
      [&] { plan::add_group_bias(bias, y); }, [&] { cuda::add_group_bias(bias, offsets, y); });
}

}  // namespace switchyard::kernels
