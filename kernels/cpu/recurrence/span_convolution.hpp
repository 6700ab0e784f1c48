// The CPU twins of kernels/recurrence/span_convolution.hpp.
#pragma once

#include "kernels/recurrence/span_convolution.hpp"

namespace switchyard::kernels::cpu {

void span_convolution_forward(const ConvolutionShape& shape, const TensorView& x,
                              const TensorView& logits, const TensorView& y);
void span_convolution_backward(const ConvolutionShape& shape, const TensorView& dy,
                               const TensorView& x, const TensorView& logits, const TensorView& dx,
                               const TensorView& dlogits);
void multiply_elements(const TensorView& a, const TensorView& b, const TensorView& out);

}  // namespace switchyard::kernels::cpu
