#include "kernels/plan/grouped_linear.hpp"

#include <algorithm>

#include "kernels/plan/linear.hpp"

namespace switchyard::kernels::plan {

namespace {

// visit(group, begin, end) for the groups with rows.
template <class Visit>
void for_each_group(std::int64_t num_groups, std::int64_t num_rows, Visit&& visit) {
  const std::vector<std::int64_t> offsets = even_offsets(num_groups, num_rows);
  for (std::size_t g = 0; g + 1 < offsets.size(); ++g)
    if (offsets[g] < offsets[g + 1]) visit(g, offsets[g], offsets[g + 1]);
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
  for_each_group(
      std::ssize(weights), x.rows(), [&](std::size_t g, std::int64_t begin, std::int64_t end) {
        plan::linear_forward(x.slice_rows(begin, end), weights[g], y.slice_rows(begin, end));
      });
}

void grouped_linear_backward_input(const TensorView& dy, std::span<const PackedWeight> weights,
                                   const TensorView& dx, Accumulate accumulate) {
  for_each_group(std::ssize(weights), dy.rows(),
                 [&](std::size_t g, std::int64_t begin, std::int64_t end) {
                   plan::linear_backward_input(dy.slice_rows(begin, end), weights[g],
                                               dx.slice_rows(begin, end), accumulate);
                 });
}

void grouped_linear_backward_weight(const TensorView& dy, const TensorView& x,
                                    const TensorView& dw) {
  for_each_group(dw.shape[0], dy.rows(), [&](std::size_t g, std::int64_t begin, std::int64_t end) {
    plan::linear_backward_weight(dy.slice_rows(begin, end), x.slice_rows(begin, end),
                                 dw[static_cast<std::int64_t>(g)]);
  });
}

}  // namespace switchyard::kernels::plan
