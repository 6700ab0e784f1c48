#include "kernels/plan/grouped_linear.hpp"

#include <algorithm>

#include "kernels/plan/record.hpp"

namespace switchyard::kernels::plan {

namespace {

double bytes_of(const TensorView& view) {
  return static_cast<double>(view.num_bytes());
}

// Of even groups: those with rows.
std::int64_t num_in_use(std::int64_t num_groups, std::int64_t num_rows) {
  return std::min(num_groups, num_rows);
}

double product_flops(std::int64_t rows, std::int64_t out, std::int64_t in) {
  return 2.0 * static_cast<double>(rows) * static_cast<double>(out) * static_cast<double>(in);
}

}  // namespace

std::vector<std::int64_t> even_offsets(std::int64_t num_groups, std::int64_t num_rows) {
  std::vector<std::int64_t> offsets;
  for (std::int64_t g = 0; g <= num_groups; ++g)
    offsets.push_back(num_rows / num_groups * g + std::min(g, num_rows % num_groups));
  return offsets;
}

void grouped_linear_forward(const TensorView& x, std::span<const PackedWeight> weights,
                            const TensorView& y) {
  const std::int64_t groups = num_in_use(std::ssize(weights), x.rows());
  record(x, product_flops(x.rows(), y.cols(), x.cols()),
         bytes_of(x) + static_cast<double>(groups) * bytes_of(weights[0].forward_layout()) +
             bytes_of(y),
         {groups, x.rows(), y.cols(), x.cols()});
}

void grouped_linear_backward_input(const TensorView& dy, std::span<const PackedWeight> weights,
                                   const TensorView& dx, Accumulate accumulate) {
  const std::int64_t groups = num_in_use(std::ssize(weights), dy.rows());
  const int num_passes = accumulate == Accumulate::yes ? 2 : 1;
  record(dy, product_flops(dy.rows(), dy.cols(), dx.cols()),
         bytes_of(dy) + static_cast<double>(groups) * bytes_of(weights[0].backward_layout()) +
             num_passes * bytes_of(dx),
         {groups, dy.rows(), dy.cols(), dx.cols()});
}

void grouped_linear_backward_weight(const TensorView& dy, const TensorView& x,
                                    const TensorView& dw) {
  const std::int64_t groups = num_in_use(dw.shape[0], dy.rows());
  record(dy, product_flops(dy.rows(), dy.cols(), x.cols()),
         bytes_of(dy) + bytes_of(x) + 2.0 * static_cast<double>(groups) * bytes_of(dw[0]),
         {groups, dy.rows(), dy.cols(), x.cols()});
}

}  // namespace switchyard::kernels::plan
