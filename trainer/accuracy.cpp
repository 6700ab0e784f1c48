#include "trainer/accuracy.hpp"

#include "kernels/host_copy.hpp"
#include "kernels/rows/elementwise.hpp"
#include "kernels/rows/right_answers.hpp"
#include "kernels/sums/sums.hpp"

namespace switchyard {

Accuracy::Accuracy(Device& device, std::int64_t num_tokens)
    : right_(device, Purpose::workspace, DType::f32, {num_tokens}),
      sum_(device, Purpose::workspace, DType::f64, {1}) {}

void Accuracy::begin() {
  kernels::fill_zero(sum_);
}

Head::SeeLogits Accuracy::watch(const TokenBatch& batch, std::int64_t vocab_size) {
  return [this, &batch, vocab_size](std::int64_t begin, const TensorView& logits) {
    const std::int64_t end = begin + logits.rows();
    kernels::right_answers(
        logits, batch.targets.flat().slice_rows(begin, end), vocab_size,
        batch.weights.empty() ? TensorView{} : batch.weights.flat().slice_rows(begin, end),
        right_->slice_rows(begin, end));
  };
}

void Accuracy::add() {
  kernels::add_sum(right_, 1.0, sum_);
}

double Accuracy::num_right() const {
  double sum = 0;
  kernels::copy_to_host<double>(sum_, {&sum, 1});
  return sum;
}

}  // namespace switchyard
