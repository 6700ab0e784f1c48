// The CUDA twins of kernels/attention/attention_sink.hpp.
#pragma once

#include "tensor/tensor.hpp"

namespace switchyard::kernels::cuda {

void attention_sink_forward(const TensorView& sinks, std::int64_t head_dim, const TensorView& out,
                            const TensorView& lse);
void attention_sink_backward(const TensorView& sinks, const TensorView& lse,
                             const TensorView& delta, const TensorView& dsinks);

}  // namespace switchyard::kernels::cuda
