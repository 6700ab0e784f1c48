#include "kernels/attention/gated_sum.hpp"

#include "kernels/check.hpp"
#include "kernels/cpu/attention/gated_sum.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/plan/loops.hpp"

namespace switchyard::kernels {

void gated_sum(const TensorView& branches, const TensorView& gates, std::int64_t num_heads,
               const TensorView& out) {
  if (out.empty()) return;
  expect(is_float(out.dtype) && num_heads > 0 && out.cols() % num_heads == 0 &&
             branches.rows() % out.rows() == 0,
         "out: f32 or bf16 [tokens, heads * head_dim], and branches of as many tokens");
  expect_matrix(branches, out.dtype, branches.rows(), out.cols(), "branches like out");
  expect_matrix(gates, DType::f32, out.rows(), branches.rows() / out.rows() * num_heads,
                "gates: f32 [tokens, branches * heads]");
  dispatch(
      *out.device, [&] { cpu::gated_sum(branches, gates, num_heads, out); },
      [&] { plan::gated_sum(branches, gates, out); });
}

}  // namespace switchyard::kernels
