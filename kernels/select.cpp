#include "kernels/select.hpp"

#include "kernels/check.hpp"
#include "kernels/cpu/select.hpp"
#include "kernels/cuda/select.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/plan/loops.hpp"

namespace switchyard::kernels {

void select_top_k(const TensorView& scores, const TensorView& indices) {
  if (scores.empty()) return;
  expect(scores.dtype == DType::f32, "scores of type f32");
  expect(indices.dtype == DType::i32 && indices.rows() == scores.rows() && indices.cols() >= 1 &&
             indices.cols() <= scores.cols(),
         "indices i32 [T, k] with 1 <= k <= E");
  dispatch(
      *scores.device, [&] { cpu::select_top_k(scores, indices); },
      [&] { plan::select_top_k(scores, indices); }, [&] { cuda::select_top_k(scores, indices); });
}

}  // namespace switchyard::kernels
