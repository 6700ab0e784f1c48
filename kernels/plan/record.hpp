// What a kernel of the plan device does: it notes the work in the device's profile, and where a
// record of the step is kept (tensor/work_record.hpp), in that.
#pragma once

#include "tensor/tensor.hpp"
#include "tensor/work_record.hpp"

namespace switchyard::kernels::plan {

// flops: a multiply-add counts two. bytes: of memory read and written, once per operand. dims: see
// WorkUnit. kind: the name of the twin that calls. dtype: of what the work is done in.
inline void record_as(DType dtype, const TensorView& any_operand, double flops, double bytes,
                      const WorkDims& dims = {}, const char* kind = __builtin_FUNCTION()) {
  Profile& profile = any_operand.device->profile();
  profile.record({.flops = flops, .bytes = bytes, .wire_bytes = 0});
  if (profile.keeps_work())
    profile.note({.kind = kind, .dtype = dtype, .dims = dims, .flops = flops, .bytes = bytes});
}

// The same in any_operand's type.
inline void record(const TensorView& any_operand, double flops, double bytes,
                   const WorkDims& dims = {}, const char* kind = __builtin_FUNCTION()) {
  record_as(any_operand.dtype, any_operand, flops, bytes, dims, kind);
}

}  // namespace switchyard::kernels::plan
