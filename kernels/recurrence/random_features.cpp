#include "kernels/recurrence/random_features.hpp"

#include "kernels/check.hpp"
#include "kernels/cpu/recurrence/random_features.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/plan/loops.hpp"
#include "kernels/threads.hpp"

namespace switchyard::kernels {

namespace {

void check(const TensorView& x, const TensorView& directions, const TensorView& features,
           const TensorView& workspace) {
  expect(is_float(x.dtype), "x of type f32 or bf16");
  expect(directions.dtype == DType::f32 && directions.is_contiguous() && !directions.empty(),
         "directions: f32 [features, width]");
  const std::int64_t width = directions.cols(), num_features = directions.rows();
  expect(x.cols() % width == 0, "whole heads");
  expect_matrix(features, x.dtype, x.rows(), x.cols() / width * num_features,
                "features of the type of x, for each of its heads");
  const PlanTarget least{.device = DeviceKind::cpu, .num_threads = 1};
  expect(workspace.dtype == DType::u8 && workspace.is_contiguous() &&
             workspace.num_bytes() >= random_features_workspace_bytes(width, num_features, least),
         "a workspace of random_features_workspace_bytes");
}

}  // namespace

void random_features_forward(FeatureSide side, const TensorView& x, const TensorView& directions,
                             const TensorView& y, const TensorView& workspace) {
  if (x.empty()) return;
  check(x, directions, y, workspace);
  dispatch(
      *x.device, [&] { cpu::random_features_forward(side, x, directions, y, workspace); },
      [&] { plan::random_features_forward(x, directions, y); });
}

void random_features_backward(FeatureSide side, const TensorView& dy, const TensorView& x,
                              const TensorView& directions, const TensorView& dx,
                              const TensorView& workspace) {
  if (x.empty()) return;
  check(x, directions, dy, workspace);
  expect_matrix(dx, x.dtype, x.rows(), x.cols(), "dx like x");
  dispatch(
      *x.device, [&] { cpu::random_features_backward(side, dy, x, directions, dx, workspace); },
      [&] { plan::random_features_backward(x, directions, dy); });
}

std::int64_t random_features_workspace_bytes(std::int64_t width, std::int64_t num_features,
                                             const PlanTarget& target) {
  return cpu::random_features_workspace_bytes(
      width, num_features, target.num_threads > 0 ? target.num_threads : num_threads());
}

}  // namespace switchyard::kernels
