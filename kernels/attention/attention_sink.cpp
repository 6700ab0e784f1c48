#include "kernels/attention/attention_sink.hpp"

#include "kernels/check.hpp"
#include "kernels/cpu/attention/attention_sink.hpp"
#include "kernels/cuda/attention/attention_sink.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/plan/attention.hpp"

namespace switchyard::kernels {

void attention_sink_forward(const TensorView& sinks, std::int64_t head_dim, const TensorView& out,
                            const TensorView& lse) {
  if (out.empty() || sinks.empty()) return;
  const std::int64_t num_heads = sinks.rows();
  expect(sinks.dtype == DType::f32 && sinks.is_contiguous(), "sinks: f32 [heads, sinks]");
  expect(is_float(out.dtype) && out.cols() == num_heads * head_dim,
         "out: [rows, heads * head_dim]");
  expect_matrix(lse, DType::f32, out.rows(), num_heads, "lse: f32 [rows, heads]");
  dispatch(
      *out.device, [&] { cpu::attention_sink_forward(sinks, head_dim, out, lse); },
      [&] { plan::attention_sink_forward(out, lse); },
      [&] { cuda::attention_sink_forward(sinks, head_dim, out, lse); });
}

void attention_sink_backward(const TensorView& sinks, const TensorView& lse,
                             const TensorView& delta, const GradientSum& dsinks) {
  if (lse.empty() || sinks.empty()) return;
  expect(sinks.dtype == DType::f32 && sinks.is_contiguous(), "sinks: f32 [heads, sinks]");
  expect_matrix(dsinks.view, dsinks.view.dtype, sinks.rows(), sinks.cols(), "dsinks like sinks");
  expect_gradient(dsinks, sinks.numel(), "dsinks: f32 or i64", false);
  expect_matrix(lse, DType::f32, lse.rows(), sinks.rows(), "lse: f32 [rows, heads]");
  expect_matrix(delta, DType::f32, lse.rows(), sinks.rows(), "delta: f32 [rows, heads]");
  dispatch(
      *lse.device, [&] { cpu::attention_sink_backward(sinks, lse, delta, dsinks); },
      [&] { plan::attention_sink_backward(lse, delta); },
      [&] { cuda::attention_sink_backward(sinks, lse, delta, in_fp32(dsinks)); });
}

}  // namespace switchyard::kernels
