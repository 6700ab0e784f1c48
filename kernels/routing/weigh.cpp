#include "kernels/routing/weigh.hpp"

#include "kernels/check.hpp"
#include "kernels/cpu/routing/weigh.hpp"
#include "kernels/cuda/routing/weigh.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/plan/loops.hpp"

namespace switchyard::kernels {

namespace {

void check_chosen(const TensorView& scores, const TensorView& indices, const TensorView& chosen) {
  expect(scores.dtype == DType::f32, "scores of type f32");
  expect(indices.dtype == DType::i32 && indices.rows() == scores.rows(), "indices i32 [T, k]");
  expect_matrix(chosen, DType::f32, indices.rows(), indices.cols(), "weights f32 [T, k]");
}

}  // namespace

void weigh(const TensorView& scores, const TensorView& indices, const Weighing& weighing,
           const TensorView& weights) {
  if (scores.empty()) return;
  check_chosen(scores, indices, weights);
  dispatch(
      *scores.device, [&] { cpu::weigh(scores, indices, weighing, weights); },
      [&] { plan::weigh(weights); }, [&] { cuda::weigh(scores, indices, weighing, weights); });
}

void weigh_backward(const TensorView& dweights, const TensorView& scores, const TensorView& indices,
                    const Weighing& weighing, const TensorView& dchosen) {
  if (scores.empty()) return;
  check_chosen(scores, indices, dweights);
  check_chosen(scores, indices, dchosen);
  dispatch(
      *scores.device, [&] { cpu::weigh_backward(dweights, scores, indices, weighing, dchosen); },
      [&] { plan::weigh_backward(dweights); },
      [&] { cuda::weigh_backward(dweights, scores, indices, weighing, dchosen); });
}

}  // namespace switchyard::kernels
