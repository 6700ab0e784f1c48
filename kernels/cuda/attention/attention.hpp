// The CUDA twins of kernels/attention/attention.hpp. A tile of queries or keys belongs to one block
// of threads, which takes the other side's tiles in their order: no sum depends on who runs when.
#pragma once

#include "kernels/attention/attention.hpp"

namespace switchyard::kernels::cuda {

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

}  // namespace switchyard::kernels::cuda
