#include "kernels/recurrence/feature_map.hpp"

#include "kernels/check.hpp"
#include "kernels/cpu/recurrence/feature_map.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/plan/loops.hpp"
#include "kernels/rows/elementwise.hpp"

namespace switchyard::kernels {

namespace {

// features: what x becomes, or its gradient.
void check(FeatureMap map, const TensorView& x, std::int64_t width, const TensorView& features) {
  expect(is_float(x.dtype), "x of type f32 or bf16");
  expect(width > 0 && x.cols() % width == 0, "whole heads");
  expect_matrix(features, x.dtype, x.rows(), x.cols() / width * feature_width(map, width),
                "features of the type of x, for each of its heads");
}

void copy_unless_same(const TensorView& from, const TensorView& to) {
  if (from.data != to.data || from.device->is_plan()) copy(from, to);
}

}  // namespace

void feature_map_forward(FeatureMap map, const TensorView& x, std::int64_t width,
                         const TensorView& y) {
  if (x.empty()) return;
  check(map, x, width, y);
  if (map == FeatureMap::identity) return copy_unless_same(x, y);
  dispatch(
      *x.device, [&] { cpu::feature_map_forward(map, x, width, y); },
      [&] { plan::feature_map_forward(x, y); });
}

void feature_map_backward(FeatureMap map, const TensorView& dy, const TensorView& x,
                          std::int64_t width, const TensorView& dx) {
  if (x.empty()) return;
  check(map, x, width, dy);
  check(FeatureMap::identity, x, width, dx);
  if (map == FeatureMap::identity) return copy_unless_same(dy, dx);
  dispatch(
      *x.device, [&] { cpu::feature_map_backward(map, dy, x, width, dx); },
      [&] { plan::feature_map_backward(x, dy); });
}

}  // namespace switchyard::kernels
