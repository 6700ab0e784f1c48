// The CPU twins of kernels/recurrence/short_convolution.hpp.
#pragma once

#include "kernels/recurrence/short_convolution.hpp"

namespace switchyard::kernels::cpu {

void short_convolution_forward(const ConvolutionShape& shape, const TensorView& x,
                               const TensorView& weight, const TensorView& bias,
                               const TensorView& y);
void short_convolution_backward(const ConvolutionShape& shape, const TensorView& dy,
                                const TensorView& x, const TensorView& weight, const TensorView& dx,
                                const TensorView& dweight, const TensorView& dbias);

}  // namespace switchyard::kernels::cpu
