// The products of kernels/products/grouped_linear.hpp, and with one group those of
// kernels/products/linear.hpp, on the CPU, by oneDNN. The pieces of all groups lie in one queue
// (kernels/threads.hpp), and every piece is one product on one thread, so how they are cut changes
// no bit of a row. Scratch of padded pieces is the device's.
#pragma once

#include <vector>

#include "kernels/products/grouped_linear.hpp"

namespace switchyard::kernels::cpu {

// Weights [out, in] and which products are made with them.
struct ProductKind {
  std::int64_t out = 0;
  std::int64_t in = 0;
  DType compute = DType::f32;
  bool is_grouped = false;
  bool backward = true;  // or the forward product alone
};
// What they take of Device::kernel_scratch, the same on every processor.
std::int64_t product_scratch_bytes(const ProductKind& kind, int num_threads);

// Checks that they ascend from 0 to at most num_rows.
std::vector<std::int64_t> read_offsets(const TensorView& offsets, std::int64_t num_rows);
void write_offsets(std::span<const std::int64_t> offsets, const TensorView& to);

void grouped_linear_forward(const TensorView& x, std::span<const PackedWeight> weights,
                            const TensorView& offsets, const TensorView& y);
void grouped_linear_backward_input(const TensorView& dy, std::span<const PackedWeight> weights,
                                   const TensorView& offsets, const TensorView& dx,
                                   Accumulate accumulate);
void grouped_linear_backward_weight(const TensorView& dy, const TensorView& x,
                                    const TensorView& offsets, const GradientSum& dw);

}  // namespace switchyard::kernels::cpu
