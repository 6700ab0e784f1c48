// The machine's ceiling, measured with the product kernels themselves: what a share of the peak in
// a report refers to.
#pragma once

#include "tensor/tensor.hpp"

namespace switchyard::kernels {

// The best rate, in floating-point operations a second, of linear_forward on this process's threads
// within about `seconds`: packed weights [1024, 512], 2048 rows, in `compute` (f32 or bf16).
// 0 on the plan device.
double measure_product_peak(Device& device, DType compute, double seconds);

}  // namespace switchyard::kernels
