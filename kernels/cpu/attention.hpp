// Attention on the CPU: oneDNN products on blocks, and our softmax between them. A task is a kv
// head of one sequence (in the forward pass one block of its queries); the query heads that share a
// kv head are stacked into the rows of a block.
#pragma once

#include "kernels/attention.hpp"
#include "kernels/attention_gradients.hpp"

namespace switchyard::kernels::cpu {

void attention_forward(const AttentionShape& shape, const TensorView& q, const TensorView& k,
                       const TensorView& v, const TensorView& out, const TensorView& lse,
                       const TensorView& workspace);
void attention_backward(const AttentionShape& shape, const TensorView& q, const TensorView& k,
                        const TensorView& v, const TensorView& out, const TensorView& lse,
                        const TensorView& dout, const AttentionGradients& gradients,
                        const TensorView& workspace);
std::int64_t attention_workspace_bytes_of_thread(const AttentionShape& shape, DType dtype);

}  // namespace switchyard::kernels::cpu
