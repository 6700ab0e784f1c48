#include "kernels/cuda/rows/right_answers.hpp"

#include "kernels/cuda/runs.cuh"
#include "kernels/rows/cross_entropy.hpp"

namespace switchyard::kernels::cuda {

namespace {

constexpr int threads = 256;

struct Answers {
  CardRows<float> logits;
  const std::int32_t* targets;
  const float* weights;  // null: 1 each
  float* right;
  std::int64_t vocab_size;
};

// A block for each row. A row is right if no logit before the target's is as large, and none behind
// it is larger.
__global__ void __launch_bounds__(threads) right_answers_kernel(const Answers op) {
  const std::int64_t row = blockIdx.x;
  const std::int32_t target = op.targets[row];
  expect_on_card(target == no_target || (0 <= target && target < op.vocab_size),
                 "targets within the vocabulary");
  bool is_right = target != no_target;
  if (is_right) {
    const float* const x = op.logits[row];
    const float highest = x[target];
    for (std::int64_t i = threadIdx.x; i < op.vocab_size; i += threads)
      is_right = is_right && (i < target ? x[i] < highest : x[i] <= highest);
  }
  const bool all_right = __syncthreads_and(is_right ? 1 : 0) != 0;
  if (threadIdx.x != 0) return;
  op.right[row] = !all_right ? 0.0f : op.weights == nullptr ? 1.0f : op.weights[row];
}

}  // namespace

void right_answers(const TensorView& logits, const TensorView& targets, std::int64_t vocab_size,
                   const TensorView& weights, const TensorView& right) {
  const Answers op{.logits = card_rows<float>(logits),
                   .targets = pointer<std::int32_t>(targets),
                   .weights = weights.empty() ? nullptr : pointer<float>(weights),
                   .right = pointer<float>(right),
                   .vocab_size = vocab_size};
  right_answers_kernel<<<num_blocks(logits.rows(), 1), threads, 0, stream_of(logits)>>>(op);
  check_launch();
}

}  // namespace switchyard::kernels::cuda
