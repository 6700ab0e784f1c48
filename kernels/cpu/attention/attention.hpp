// Attention on the CPU: oneDNN products on blocks, and our softmax between them. The query heads
// that share a kv head are stacked into the rows of a block.
#pragma once

#include "kernels/attention/attention.hpp"

namespace switchyard::kernels::cpu {

void attention_forward(const AttentionShape& shape, const TensorView& q, const TensorView& k,
                       const TensorView& v, const KeyRanges& ranges, const TensorView& out,
                       const TensorView& lse, Merge merge, const TensorView& workspace,
                       const Poll& poll);
void attention_delta(const TensorView& out, const TensorView& dout, std::int64_t head_dim,
                     const TensorView& delta);
void attention_backward(const AttentionShape& shape, const TensorView& q, const TensorView& k,
                        const TensorView& v, const KeyRanges& ranges, const TensorView& lse,
                        const TensorView& delta, const TensorView& dout,
                        const AttentionGradients& gradients, const TensorView& workspace,
                        const Poll& poll);
std::int64_t attention_workspace_bytes(const AttentionShape& shape, DType dtype, int num_threads);

}  // namespace switchyard::kernels::cpu
