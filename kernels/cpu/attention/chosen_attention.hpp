// The CPU twin of kernels/attention/chosen_attention.hpp.
#pragma once

#include "kernels/attention/chosen_attention.hpp"

namespace switchyard::kernels::cpu {

void chosen_attention_forward(const AttentionShape& shape, const TensorView& q, const TensorView& k,
                              const TensorView& v, const ChosenBlocks& blocks,
                              const TensorView& out, const TensorView& lse, Merge merge,
                              const TensorView& workspace, const Poll& poll);
void chosen_attention_backward(const AttentionShape& shape, const TensorView& q,
                               const TensorView& k, const TensorView& v, const ChosenBlocks& blocks,
                               const TensorView& lse, const TensorView& delta,
                               const TensorView& dout, const TensorView& dq, const TensorView& dk,
                               const TensorView& dv, const TensorView& workspace, const Poll& poll);
std::int64_t chosen_attention_workspace_bytes(const AttentionShape& shape, std::int64_t block,
                                              std::int64_t num_choices, DType dtype,
                                              bool has_backward, int num_threads);

}  // namespace switchyard::kernels::cpu
