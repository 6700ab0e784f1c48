#include "kernels/plan/linear.hpp"

#include "kernels/plan/record.hpp"

namespace switchyard::kernels::plan {

namespace {

double bytes_of(const TensorView& view) {
  return static_cast<double>(view.num_bytes());
}

double product_flops(std::int64_t rows, std::int64_t out, std::int64_t in) {
  return 2.0 * static_cast<double>(rows) * static_cast<double>(out) * static_cast<double>(in);
}

}  // namespace

void pack_weight(const TensorView& weight, DType compute, const TensorView& forward,
                 const TensorView& backward) {
  const int num_layouts = backward.device == nullptr ? 1 : 2;
  const double written = bytes_of(forward) + (num_layouts == 2 ? bytes_of(backward) : 0.0);
  record_as(compute, weight, 0, num_layouts * bytes_of(weight) + written);
}

void linear_forward(const TensorView& x, const PackedWeight& weight, const TensorView& y) {
  record(x, product_flops(x.rows(), y.cols(), x.cols()),
         bytes_of(x) + bytes_of(weight.forward_layout()) + bytes_of(y),
         {x.rows(), y.cols(), x.cols()});
}

void linear_backward_input(const TensorView& dy, const PackedWeight& weight, const TensorView& dx,
                           Accumulate accumulate) {
  const int num_passes = accumulate == Accumulate::yes ? 2 : 1;
  record(dy, product_flops(dy.rows(), dy.cols(), dx.cols()),
         bytes_of(dy) + bytes_of(weight.backward_layout()) + num_passes * bytes_of(dx),
         {dy.rows(), dy.cols(), dx.cols()});
}

void linear_backward_weight(const TensorView& dy, const TensorView& x, const TensorView& dw) {
  record(dy, product_flops(dy.rows(), dy.cols(), x.cols()),
         bytes_of(dy) + bytes_of(x) + 2.0 * bytes_of(dw), {dy.rows(), dy.cols(), x.cols()});
}

}  // namespace switchyard::kernels::plan
