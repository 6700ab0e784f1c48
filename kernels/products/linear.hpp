// Products with a weight matrix. W is [out_features, in_features] as in PyTorch; x is [rows,
// in_features]; y is [rows, out_features]. On the CPU oneDNN computes them, on a card cuBLASLt;
// sums are fp32.
//
// A PackedWeight holds W in the compute type (f32 or bf16), rounded to nearest even, in the two
// layouts that the forward and the backward product read; the optimizer step repacks it once. What
// a layout holds depends on the processor, its size does not: whole blocks of 64 columns of a
// product's second operand, and of 64 bytes of each. On a card, and in the plan for one, there is
// one layout, [out, in], which both products read.
//
// Threads take the rows in pieces, of a fixed length where the length may change a row's bits, and
// a last partial piece is computed padded, so a row's bits do not depend on how many rows come with
// it; on a card this holds for grouped products alone (kernels/products/grouped_linear.hpp), while
// cuBLASLt gives a call the same bits in every run. Padded pieces, and what oneDNN works in, lie in
// the device's kernel_scratch, of which a PackedWeight reserves what its products need. Not to be
// called from within a piece (kernels/threads.hpp).
#pragma once

#include "kernels/gradient_sum.hpp"
#include "tensor/tensor.hpp"

namespace switchyard::kernels {

class PackedWeight {
 public:
  PackedWeight() = default;
  // Purpose::parameter memory; contents are undefined until pack().
  // compute: f32 or bf16. backward: whether linear_backward_input will be called.
  PackedWeight(Device& device, std::int64_t out_features, std::int64_t in_features, DType compute,
               bool backward = true);
  // weight: f32 [out_features, in_features], contiguous.
  void pack(const TensorView& weight);

  std::int64_t out_features() const { return out_features_; }
  std::int64_t in_features() const { return in_features_; }
  DType compute_dtype() const { return compute_; }
  const TensorView& forward_layout() const { return forward_.view(); }
  const TensorView& backward_layout() const {
    return shares_layout_ ? forward_.view() : backward_.view();
  }

 private:
  std::int64_t out_features_ = 0;
  std::int64_t in_features_ = 0;
  DType compute_ = DType::f32;
  Tensor forward_;              // u8, opaque
  Tensor backward_;             // u8, opaque; empty without backward
  bool shares_layout_ = false;  // both products read the first
};

// Callers that take rows in blocks take multiples of it.
inline constexpr std::int64_t row_block = 256;

enum class Accumulate : bool { no, yes };

// y = x W^T. x: compute type; y: compute type or f32. Rows of x and y may be strided.
void linear_forward(const TensorView& x, const PackedWeight& weight, const TensorView& y);

// dx = dy W, or dx += dy W. dy: compute type; dx: compute type or f32 (Accumulate::yes: f32 or the
// compute type, summed in fp32 before rounding). Rows may be strided.
void linear_backward_input(const TensorView& dy, const PackedWeight& weight, const TensorView& dx,
                           Accumulate accumulate = Accumulate::no);

// dw += dy^T x. dy: [rows, out], x: [rows, in], same type f32 or bf16, rows may be strided;
// dw: f32 or i64 [out, in], contiguous (kernels/gradient_sum.hpp).
void linear_backward_weight(const TensorView& dy, const TensorView& x, const GradientSum& dw);

}  // namespace switchyard::kernels
