// Attention for any head_dim, type, stride and address, in tiles of 64 x 64 with fp32 arithmetic on
// the card's general units: right everywhere, and the way of f32. Head vectors are read in pieces,
// and results made 64 columns at a time, so that nothing grows with head_dim.
#pragma once

#include "kernels/attention/attention.hpp"

namespace switchyard::kernels::cuda {

void attention_forward_general(const AttentionShape& shape, const TensorView& q,
                               const TensorView& k, const TensorView& v, const KeyRanges& ranges,
                               const TensorView& out, const TensorView& lse, Merge merge);

void attention_backward_general(const AttentionShape& shape, const TensorView& q,
                                const TensorView& k, const TensorView& v, const KeyRanges& ranges,
                                const TensorView& lse, const TensorView& delta,
                                const TensorView& dout, const AttentionGradients& gradients);

}  // namespace switchyard::kernels::cuda
