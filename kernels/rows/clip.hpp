// Elements held within [-limit, limit], and the gradient of that: 0 for those that lay beyond.
#pragma once

#include "tensor/tensor.hpp"

namespace switchyard::kernels {

// x: [rows, cols] f32 or bf16, in place, rows may be strided; a NaN stays. inside: u8 like x, 1
// where the element stayed as it was and 0 where not; TensorView{} if no backward follows.
void clip_forward(const TensorView& x, float limit, const TensorView& inside);
// dx: like x, in place.
void clip_backward(const TensorView& dx, const TensorView& inside);

}  // namespace switchyard::kernels
