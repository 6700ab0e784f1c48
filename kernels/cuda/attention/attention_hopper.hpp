// Attention in bf16 by Hopper's own instructions (products of warpgroups, tiles by the copy
// engine), for head dims up to 128 that are multiples of 8 and rows that begin at multiples of 16
// bytes. Kernels are made for 64 and 128; a shorter head comes with zeros behind it. After Shah et
// al., "FlashAttention-3" (2024): one warpgroup brings tiles, two compute.
#pragma once

#include "kernels/attention/attention.hpp"

namespace switchyard::kernels::cuda {

// Whether this card, build and call can be served here.
bool can_attend_on_hopper(const AttentionShape& shape, const TensorView& q, const TensorView& k,
                          const TensorView& v, const TensorView& out);

// takes_turns: the two computing warpgroups issue their products one after the other, as
// FlashAttention-3 does; cuda_speed_attention times both ways.
void attention_forward_hopper(const AttentionShape& shape, const TensorView& q, const TensorView& k,
                              const TensorView& v, const KeyRanges& ranges, const TensorView& out,
                              const TensorView& lse, Merge merge, bool takes_turns = true);

// attention_backward's arguments.
struct BackwardCall {
  const AttentionShape& shape;
  const TensorView& q;
  const TensorView& k;
  const TensorView& v;
  const KeyRanges& ranges;
  const TensorView& lse;
  const TensorView& delta;
  const TensorView& dout;
  const AttentionGradients& gradients;
};
bool can_differentiate_on_hopper(const BackwardCall& call);
// dq, by tiles of 64 or 128 keys; dk and dv.
void query_gradients_hopper(const BackwardCall& call, int keys_of_tile = 128);
void key_gradients_hopper(const BackwardCall& call);

}  // namespace switchyard::kernels::cuda
