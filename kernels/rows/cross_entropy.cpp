#include "kernels/rows/cross_entropy.hpp"

#include "kernels/check.hpp"
#include "kernels/cpu/rows/cross_entropy.hpp"
#include "kernels/cuda/rows/cross_entropy.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/plan/loops.hpp"

namespace switchyard::kernels {

void softmax_cross_entropy(const TensorView& logits, const TensorView& targets,
                           std::int64_t vocab_size, float gradient_scale, const TensorView& losses,
                           const TensorView& dlogits, const TensorView& weights) {
  if (logits.empty()) return;
  const std::int64_t tokens = logits.rows();
  expect(logits.dtype == DType::f32, "logits of type f32");
  expect(0 < vocab_size && vocab_size <= logits.cols(), "a vocabulary within the columns");
  expect_vector(targets, DType::i32, tokens, "targets i32 [T]");
  expect_vector(losses, DType::f32, tokens, "losses f32 [T]");
  if (!dlogits.empty())
    expect(is_float(dlogits.dtype) && has_size(dlogits, tokens, logits.cols()),
           "dlogits f32 or bf16 [T, V]");
  if (!weights.empty()) expect_vector(weights, DType::f32, tokens, "weights f32 [T]");
  dispatch(
      *logits.device,
      [&] {
        cpu::softmax_cross_entropy(logits, targets, vocab_size, gradient_scale, losses, dlogits,
                                   weights);
      },
      [&] { plan::softmax_cross_entropy(logits, dlogits, weights); },
      [&] {
        cuda::softmax_cross_entropy(logits, targets, vocab_size, gradient_scale, losses, dlogits,
                                    weights);
      });
}

}  // namespace switchyard::kernels
