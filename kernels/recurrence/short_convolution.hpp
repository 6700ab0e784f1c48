// Causal convolution along a sequence, of each channel by itself, over the last few tokens:
//   y_t = bias + sum_{j < w} weight[w - 1 - j] x_{t - j}
// as in Mamba-2 and DeltaNet, whose weights are laid out so. Taps before a document's first token
// read 0. Where sequences are split, x has the rows before each run, too.
//
// Legend: S sequences, n rows of a sequence here, m rows of it that are read, c channels, w taps.
#pragma once

#include <span>

#include "kernels/attention/key_ranges.hpp"
#include "tensor/position_range.hpp"
#include "tensor/tensor.hpp"

namespace switchyard::kernels {

struct ConvolutionShape {
  std::int64_t num_sequences = 0;
  std::span<const PositionRange> held = {};  // positions of the n rows, ascending and apart
  // Of the m rows of x: with each position that is held the w - 1 before it, as far as there are.
  std::span<const PositionRange> read = {};
  std::int64_t channels = 0;
  std::int64_t width = 0;
  DocumentStarts document_starts = {};  // by sequence, or empty

  std::int64_t num_held() const { return num_sequences * num_positions(held); }
  std::int64_t num_read() const { return num_sequences * num_positions(read); }
};

// The positions that a convolution of these reads, joined.
std::vector<PositionRange> convolved_positions(std::span<const PositionRange> held,
                                               std::int64_t width);

// x: [S m, c], f32 or bf16; weight: f32 [c, w]; bias: f32 [c], or empty; y: [S n, c] as x, written.
void short_convolution_forward(const ConvolutionShape& shape, const TensorView& x,
                               const TensorView& weight, const TensorView& bias,
                               const TensorView& y);
// dx: f32 [S m, c], written; dweight, dbias: f32, added to, in an order that no number of threads
// changes. dbias may be empty.
void short_convolution_backward(const ConvolutionShape& shape, const TensorView& dy,
                                const TensorView& x, const TensorView& weight, const TensorView& dx,
                                const TensorView& dweight, const TensorView& dbias);

}  // namespace switchyard::kernels
