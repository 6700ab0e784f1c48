// The products of kernels/products/linear.hpp on the CPU. Packing is linear.cpp; the products are
// those of one group in grouped_linear.cpp.
#pragma once

#include "kernels/products/linear.hpp"

namespace switchyard::kernels::cpu {

// Of the operands of products: without bf16 products fp32 numbers that happen to be bf16 values.
DType operand_type(DType compute);
// Bytes of one layout of a weight: the second operand of a product over k. What it holds is packed
// by oneDNN, or, where products in bf16 are computed in fp32, the bf16 values [k, n].
std::int64_t packed_weight_bytes(std::int64_t k, std::int64_t n, DType compute);
// backward may be empty.
void pack_weight(const TensorView& weight, DType compute, const TensorView& forward,
                 const TensorView& backward);

void linear_forward(const TensorView& x, const PackedWeight& weight, const TensorView& y);
void linear_backward_input(const TensorView& dy, const PackedWeight& weight, const TensorView& dx,
                           Accumulate accumulate);
void linear_backward_weight(const TensorView& dy, const TensorView& x, const GradientSum& dw);

}  // namespace switchyard::kernels::cpu
