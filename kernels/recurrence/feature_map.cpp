#include "kernels/recurrence/feature_map.hpp"

#include "kernels/check.hpp"
#include "kernels/cpu/recurrence/feature_map.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/plan/loops.hpp"
#include "kernels/rows/elementwise.hpp"

namespace switchyard::kernels {

namespace {

void check(const TensorView& x, std::int64_t width, const TensorView& other) {
  expect(is_float(x.dtype), "x of type f32 or bf16");
  expect(width > 0 && x.cols() % width == 0, "whole heads");
  expect_matrix(other, x.dtype, x.rows(), x.cols(), "operands of the type and size of x");
}

void copy_unless_same(const TensorView& from, const TensorView& to) {
  if (from.data != to.data || from.device->is_plan()) copy(from, to);
}

}  // namespace

void feature_map_forward(FeatureMap map, const TensorView& x, std::int64_t width,
                         const TensorView& y) {
  if (x.empty()) return;
  check(x, width, y);
  if (map == FeatureMap::identity) return copy_unless_same(x, y);
  dispatch(
      *x.device, [&] { cpu::feature_map_forward(map, x, width, y); },
      [&] { plan::feature_map_forward(x); });
}

void feature_map_backward(FeatureMap map, const TensorView& dy, const TensorView& x,
                          std::int64_t width, const TensorView& dx) {
  if (x.empty()) return;
  check(x, width, dy);
  check(x, width, dx);
  if (map == FeatureMap::identity) return copy_unless_same(dy, dx);
  dispatch(
      *x.device, [&] { cpu::feature_map_backward(map, dy, x, width, dx); },
      [&] { plan::feature_map_backward(x); });
}

}  // namespace switchyard::kernels
