// Attention on the plan device: it records its work.
#pragma once

#include "kernels/attention.hpp"
#include "kernels/attention_gradients.hpp"

namespace switchyard::kernels::plan {

// Model flops, each visible pair of query and key once: 4 head_dim a head forward, 8 backward (the
// scores that the backward pass computes again are no work of the model).
void attention_forward(const AttentionShape& shape, const TensorView& q, const TensorView& k,
                       const TensorView& v, const TensorView& out, const TensorView& lse);
void attention_backward(const AttentionShape& shape, const TensorView& q, const TensorView& k,
                        const TensorView& v, const TensorView& out, const TensorView& lse,
                        const TensorView& dout, const AttentionGradients& gradients);

}  // namespace switchyard::kernels::plan
