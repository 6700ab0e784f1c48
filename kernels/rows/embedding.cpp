#include "kernels/rows/embedding.hpp"

#include "kernels/check.hpp"
#include "kernels/cpu/rows/embedding.hpp"
#include "kernels/cuda/rows/embedding.hpp"
#include "kernels/cuda/rows/embedding_sizes.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/plan/loops.hpp"

namespace switchyard::kernels {

namespace {

void check(const TensorView& tokens, const TensorView& table, const TensorView& rows) {
  expect_vector(tokens, DType::i32, tokens.rows(), "tokens i32 [T]");
  expect(is_float(rows.dtype) && has_size(rows, tokens.rows(), table.cols()),
         "rows f32 or bf16 [T, H]");
}

}  // namespace

void embedding_forward(const TensorView& tokens, const TensorView& table, const TensorView& out) {
  if (out.empty()) return;
  check(tokens, table, out);
  expect(table.dtype == DType::f32, "a table of type f32");
  dispatch(
      *out.device, [&] { cpu::embedding_forward(tokens, table, out); },
      [&] { plan::embedding_forward(out); }, [&] { cuda::embedding_forward(tokens, table, out); });
}

void embedding_backward(const TensorView& tokens, const TensorView& dout,
                        const GradientSum& dtable) {
  if (dout.empty()) return;
  check(tokens, dtable.view, dout);
  expect_gradient(dtable, dtable.view.numel(), "dtable: f32 or i64 [V, H]", false);
  dispatch(
      *dout.device, [&] { cpu::embedding_backward(tokens, dout, dtable); },
      [&] {
        // A plan for a card reserves what the card will.
        if (dout.device->target().device == DeviceKind::cuda)
          dout.device->kernel_scratch(
              cuda::TokenSort(tokens.numel(), dtable.view.rows()).scratch_bytes());
        plan::embedding_backward(dout);
      },
      [&] { cuda::embedding_backward(tokens, dout, in_fp32(dtable)); });
}

}  // namespace switchyard::kernels
