// What a kernel of the plan device does: it notes the work in the device's profile, and where a
// record of the step is kept (tensor/work_record.hpp), in that.
#pragma once

#include "tensor/tensor.hpp"
#include "tensor/work_record.hpp"

namespace switchyard::kernels::plan {

// flops: a multiply-add counts two. bytes: of memory read and written, once per operand. dims: see
// WorkUnit, with any_operand's type. kind: the name of the twin that calls.
inline void record(const TensorView& any_operand, double flops, double bytes,
                   const WorkDims& dims = {}, const char* kind = __builtin_FUNCTION()) {
  Profile& profile = any_operand.device->profile();
  profile.record({.flops = flops, .bytes = bytes, .wire_bytes = 0});
  if (profile.keeps_work())
    profile.note(
        {.kind = kind, .dtype = any_operand.dtype, .dims = dims, .flops = flops, .bytes = bytes});
}

}  // namespace switchyard::kernels::plan
