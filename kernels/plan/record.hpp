// What a kernel of the plan device does: it notes the work in the device's profile.
#pragma once

#include "tensor/tensor.hpp"

namespace switchyard::kernels::plan {

// flops: a multiply-add counts two. bytes: of memory read and written, once per operand.
inline void record(const TensorView& any_operand, double flops, double bytes) {
  any_operand.device->profile().record({.flops = flops, .bytes = bytes, .wire_bytes = 0});
}

}  // namespace switchyard::kernels::plan
