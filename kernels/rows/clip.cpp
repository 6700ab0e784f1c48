#include "kernels/rows/clip.hpp"

#include "kernels/check.hpp"
#include "kernels/cpu/rows/clip.hpp"
#include "kernels/cuda/rows/clip.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/plan/loops.hpp"

namespace switchyard::kernels {

void clip_forward(const TensorView& x, float limit, const TensorView& inside) {
  if (x.empty()) return;
  expect(is_float(x.dtype), "x of type f32 or bf16");
  expect(limit > 0, "a limit above 0");
  if (inside.device != nullptr)
    expect_matrix(inside, DType::u8, x.rows(), x.cols(), "inside u8 like x");
  dispatch(
      *x.device, [&] { cpu::clip_forward(x, limit, inside); },
      [&] { plan::clip_forward(x, inside); }, [&] { cuda::clip_forward(x, limit, inside); });
}

void clip_backward(const TensorView& dx, const TensorView& inside) {
  if (dx.empty()) return;
  expect(is_float(dx.dtype), "dx of type f32 or bf16");
  expect_matrix(inside, DType::u8, dx.rows(), dx.cols(), "inside u8 like dx");
  dispatch(
      *dx.device, [&] { cpu::clip_backward(dx, inside); }, [&] { plan::clip_backward(dx, inside); },
      [&] { cuda::clip_backward(dx, inside); });
}

}  // namespace switchyard::kernels
