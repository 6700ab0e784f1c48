#include "kernels/cuda/products/grouped_linear.hpp"

#include "kernels/cuda/products/group_product.hpp"

namespace switchyard::kernels::cuda {

namespace {

void run(const GroupProduct& product, bool is_forward) {
  if (has_wgmma_product(product))
    wgmma_product(product, is_forward);
  else
    simt_product(product, is_forward);
}

}  // namespace

void grouped_linear_forward(const TensorView& x, std::span<const PackedWeight> weights,
                            const TensorView& offsets, const TensorView& y) {
  run({.rows = x, .offsets = offsets, .weights = weights, .other_rows = {}, .result = y}, true);
}

void grouped_linear_backward_input(const TensorView& dy, std::span<const PackedWeight> weights,
                                   const TensorView& offsets, const TensorView& dx,
                                   Accumulate accumulate) {
  run({.rows = dy,
       .offsets = offsets,
       .weights = weights,
       .other_rows = {},
       .result = dx,
       .accumulate = accumulate},
      false);
}

void grouped_linear_backward_weight(const TensorView& dy, const TensorView& x,
                                    const TensorView& offsets, const TensorView& dw) {
  run({.rows = dy,
       .offsets = offsets,
       .weights = {},
       .other_rows = x,
       .result = dw,
       .accumulate = Accumulate::yes},
      false);
}

}  // namespace switchyard::kernels::cuda
