// Learned sinks: logits of a head that take part in the softmax of every row and have no value
// (OpenAI's gpt-oss has one a head). With l the row's log-sum-exp over the keys and z that of the
// head's sinks, out' = out * sigmoid(l - z) and lse' = log(e^l + e^z): they are put in after the
// attention over all keys, so parts and ranks know nothing of them.
#pragma once

#include "kernels/gradient_sum.hpp"

namespace switchyard::kernels {

// sinks: f32 [num_heads, num_sinks]. In place on out [rows, num_heads * head_dim] (f32 or bf16) and
// lse f32 [rows, num_heads]. A row with lse -infinity keeps out 0 and gets the sinks' own lse.
void attention_sink_forward(const TensorView& sinks, std::int64_t head_dim, const TensorView& out,
                            const TensorView& lse);

// lse and delta (attention_delta): of the row with its sinks. dsinks f32 or i64 [num_heads,
// num_sinks] is added to: d sink = -sum over rows of e^(sink - lse) * delta; exact sums take each
// row as a term.
void attention_sink_backward(const TensorView& sinks, const TensorView& lse,
                             const TensorView& delta, const GradientSum& dsinks);

}  // namespace switchyard::kernels
