// Convolution whose taps each token makes for itself, of each head (span-based dynamic convolution,
// ConvBERT: Jiang et al. 2020, in a causal form):
//   y_t = sum_{j < w} p_tj x_{t - j},   p_t = softmax over j of logits_t
// Taps before a document's first token read 0 and keep their share. Where sequences are split, x
// has the rows before each run, too. Arithmetic in fp32. On the CPU only.
// Legend: A heads, d their width; S, n, m, w as in short_convolution.hpp, channels = A d.
#pragma once

#include "kernels/recurrence/short_convolution.hpp"

namespace switchyard::kernels {

// x: [S m, A d], f32 or bf16; logits: f32 [S n, A w], tap j of head h at h w + j; y: [S n, A d] as
// x, written.
void span_convolution_forward(const ConvolutionShape& shape, const TensorView& x,
                              const TensorView& logits, const TensorView& y);
// dx: f32 [S m, A d] and dlogits: f32 [S n, A w], written.
void span_convolution_backward(const ConvolutionShape& shape, const TensorView& dy,
                               const TensorView& x, const TensorView& logits, const TensorView& dx,
                               const TensorView& dlogits);

// out = a b, element by element, of one type; out may be either.
void multiply_elements(const TensorView& a, const TensorView& b, const TensorView& out);

}  // namespace switchyard::kernels
