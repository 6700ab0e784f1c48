#include "kernels/routing/score.hpp"

#include "kernels/check.hpp"
#include "kernels/cpu/routing/score.hpp"
#include "kernels/cuda/routing/score.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/plan/loops.hpp"

namespace switchyard::kernels {

namespace {

void check_forward(const TensorView& logits, const TensorView& scores, const TensorView& lse) {
  expect(logits.dtype == DType::f32, "logits of type f32");
  expect_matrix(scores, DType::f32, logits.rows(), logits.cols(), "scores f32 [T, E]");
  expect_vector(lse, DType::f32, logits.rows(), "lse f32 [T]");
}

void check_backward(const TensorView& dchosen, const TensorView& indices, const TensorView& slopes,
                    const TensorView& scores, const TensorView& lse, const TensorView& dlogits) {
  const std::int64_t tokens = scores.rows();
  const std::int64_t experts = scores.cols();
  expect(scores.dtype == DType::f32, "scores of type f32");
  expect(indices.dtype == DType::i32 && indices.rows() == tokens, "indices i32 [T, k]");
  expect_matrix(dchosen, DType::f32, tokens, indices.cols(), "dchosen f32 [T, k]");
  expect(slopes.dtype == DType::f32 && slopes.cols() == experts && slopes.rows() > 0 &&
             tokens % slopes.rows() == 0,
         "slopes f32 [S, E] with S dividing T");
  expect_vector(lse, DType::f32, tokens, "lse f32 [T]");
  expect_matrix(dlogits, DType::f32, tokens, experts, "dlogits f32 [T, E]");
}

}  // namespace

void score_softmax(const TensorView& logits, const TensorView& scores, const TensorView& lse) {
  if (logits.empty()) return;
  check_forward(logits, scores, lse);
  dispatch(
      *logits.device, [&] { cpu::score_softmax(logits, scores, lse); },
      [&] { plan::score_softmax(logits); }, [&] { cuda::score_softmax(logits, scores, lse); });
}

void score_softmax_backward(const TensorView& dchosen, const TensorView& indices,
                            const TensorView& slopes, float z_slope, const TensorView& scores,
                            const TensorView& lse, const TensorView& dlogits) {
  if (scores.empty()) return;
  check_backward(dchosen, indices, slopes, scores, lse, dlogits);
  dispatch(
      *scores.device,
      [&] { cpu::score_softmax_backward(dchosen, indices, slopes, z_slope, scores, lse, dlogits); },
      [&] { plan::score_softmax_backward(scores); },
      [&] {
        cuda::score_softmax_backward(dchosen, indices, slopes, z_slope, scores, lse, dlogits);
      });
}

void score_sigmoid(const TensorView& logits, const TensorView& scores, const TensorView& lse) {
  if (logits.empty()) return;
  check_forward(logits, scores, lse);
  dispatch(
      *logits.device, [&] { cpu::score_sigmoid(logits, scores, lse); },
      [&] { plan::score_sigmoid(logits); }, [&] { cuda::score_sigmoid(logits, scores, lse); });
}

void divide_by_row_sums(const TensorView& x, const TensorView& out) {
  if (x.empty()) return;
  expect(x.dtype == DType::f32, "x of type f32");
  expect_matrix(out, DType::f32, x.rows(), x.cols(), "out f32 of the size of x");
  dispatch(
      *x.device, [&] { cpu::divide_by_row_sums(x, out); }, [&] { plan::divide_by_row_sums(x); },
      [&] { cuda::divide_by_row_sums(x, out); });
}

void score_sigmoid_backward(const TensorView& dchosen, const TensorView& indices,
                            const TensorView& slopes, float z_slope, const TensorView& logits,
                            const TensorView& scores, const TensorView& lse,
                            const TensorView& dlogits) {
  if (scores.empty()) return;
  check_backward(dchosen, indices, slopes, scores, lse, dlogits);
  expect_matrix(logits, DType::f32, scores.rows(), scores.cols(), "logits f32 [T, E]");
  dispatch(
      *scores.device,
      [&] {
        cpu::score_sigmoid_backward(dchosen, indices, slopes, z_slope, logits, scores, lse,
                                    dlogits);
      },
      [&] { plan::score_sigmoid_backward(scores); },
      [&] {
        cuda::score_sigmoid_backward(dchosen, indices, slopes, z_slope, logits, scores, lse,
                                     dlogits);
      });
}

}  // namespace switchyard::kernels
