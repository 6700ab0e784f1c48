#include "kernels/routing/select.hpp"

#include "kernels/check.hpp"
#include "kernels/cpu/routing/select.hpp"
#include "kernels/cuda/routing/select.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/plan/loops.hpp"

namespace switchyard::kernels {

namespace {

void check_selection(const Selection& selection, std::int64_t num_experts, std::int64_t top_k) {
  if (!selection.bias.empty())
    expect_vector(selection.bias, DType::f32, num_experts, "bias f32 [E]");
  expect(selection.num_groups >= 1 && num_experts % selection.num_groups == 0,
         "a number of groups that divides E");
  expect(selection.top_groups >= 1 && selection.top_groups <= selection.num_groups,
         "1 <= top_groups <= num_groups");
  expect(top_k <= num_experts / selection.num_groups * selection.top_groups,
         "as many experts in the groups of a choice as are chosen");
}

}  // namespace

void select_top_k(const TensorView& scores, const TensorView& indices, const Selection& selection) {
  if (scores.empty()) return;
  expect(scores.dtype == DType::f32, "scores of type f32");
  expect(indices.dtype == DType::i32 && indices.rows() == scores.rows() && indices.cols() >= 1 &&
             indices.cols() <= scores.cols(),
         "indices i32 [T, k] with 1 <= k <= E");
  check_selection(selection, scores.cols(), indices.cols());
  expect(selection.num_chosen >= 0 && selection.num_chosen <= indices.cols(), "num_chosen <= k");
  dispatch(
      *scores.device, [&] { cpu::select_top_k(scores, indices, selection); },
      [&] { plan::select_top_k(scores, indices); },
      [&] { cuda::select_top_k(scores, indices, selection); });
}

}  // namespace switchyard::kernels
