#include "kernels/attention/attention_merge.hpp"

#include "kernels/check.hpp"
#include "kernels/cpu/attention/attention_merge.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/plan/attention.hpp"

namespace switchyard::kernels {

void attention_merge(const TensorView& other, const TensorView& other_lse, std::int64_t head_dim,
                     const TensorView& out, const TensorView& lse) {
  if (out.empty()) return;
  expect(is_float(out.dtype), "out of type f32 or bf16");
  expect_matrix(other, DType::f32, out.rows(), out.cols(), "other: f32 [rows, heads * head_dim]");
  for (const TensorView* each : {&other_lse, &lse})
    expect_matrix(*each, DType::f32, out.rows(), out.cols() / head_dim, "lse: f32 [rows, heads]");
  dispatch(
      *out.device, [&] { cpu::attention_merge(other, other_lse, head_dim, out, lse); },
      [&] { plan::attention_merge(other, out, lse); });
}

}  // namespace switchyard::kernels
