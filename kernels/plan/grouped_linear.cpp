#include "kernels/plan/grouped_linear.hpp"

#include "kernels/plan/linear.hpp"

namespace switchyard::kernels::plan {

namespace {

// visit(group, begin, end) for the groups with rows.
template <class Visit>
void for_each_group(std::span<const std::int64_t> offsets, Visit&& visit) {
  for (std::size_t g = 0; g + 1 < offsets.size(); ++g)
    if (offsets[g] < offsets[g + 1]) visit(g, offsets[g], offsets[g + 1]);
}

}  // namespace

void grouped_linear_forward(const TensorView& x, std::span<const PackedWeight> weights,
                            std::span<const std::int64_t> offsets, const TensorView& y) {
  for_each_group(offsets, [&](std::size_t g, std::int64_t begin, std::int64_t end) {
    plan::linear_forward(x.slice_rows(begin, end), weights[g], y.slice_rows(begin, end));
  });
}

void grouped_linear_backward_input(const TensorView& dy, std::span<const PackedWeight> weights,
                                   std::span<const std::int64_t> offsets, const TensorView& dx,
                                   Accumulate accumulate) {
  for_each_group(offsets, [&](std::size_t g, std::int64_t begin, std::int64_t end) {
    plan::linear_backward_input(dy.slice_rows(begin, end), weights[g], dx.slice_rows(begin, end),
                                accumulate);
  });
}

void grouped_linear_backward_weight(const TensorView& dy, const TensorView& x,
                                    std::span<const std::int64_t> offsets, const TensorView& dw) {
  for_each_group(offsets, [&](std::size_t g, std::int64_t begin, std::int64_t end) {
    plan::linear_backward_weight(dy.slice_rows(begin, end), x.slice_rows(begin, end),
                                 dw[static_cast<std::int64_t>(g)]);
  });
}

}  // namespace switchyard::kernels::plan
