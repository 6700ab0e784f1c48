#include "kernels/rows/right_answers.hpp"

#include "kernels/check.hpp"
#include "kernels/cpu/rows/right_answers.hpp"
#include "kernels/cuda/rows/right_answers.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/plan/loops.hpp"

namespace switchyard::kernels {

void right_answers(const TensorView& logits, const TensorView& targets, std::int64_t vocab_size,
                   const TensorView& weights, const TensorView& right) {
  if (logits.empty()) return;
  const std::int64_t tokens = logits.rows();
  expect(logits.dtype == DType::f32, "logits of type f32");
  expect(0 < vocab_size && vocab_size <= logits.cols(), "a vocabulary within the columns");
  expect_vector(targets, DType::i32, tokens, "targets i32 [T]");
  if (!weights.empty()) expect_vector(weights, DType::f32, tokens, "weights f32 [T]");
  expect_vector(right, DType::f32, tokens, "right f32 [T]");
  dispatch(
      *logits.device, [&] { cpu::right_answers(logits, targets, vocab_size, weights, right); },
      [&] { plan::right_answers(logits); },
      [&] { cuda::right_answers(logits, targets, vocab_size, weights, right); });
}

}  // namespace switchyard::kernels
