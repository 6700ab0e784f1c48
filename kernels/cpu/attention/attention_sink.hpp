// The CPU twins of kernels/attention/attention_sink.hpp.
#pragma once

#include "kernels/attention/attention_sink.hpp"

namespace switchyard::kernels::cpu {

void attention_sink_forward(const TensorView& sinks, std::int64_t head_dim, const TensorView& out,
                            const TensorView& lse);
void attention_sink_backward(const TensorView& sinks, const TensorView& lse,
                             const TensorView& delta, const GradientSum& dsinks);

}  // namespace switchyard::kernels::cpu
