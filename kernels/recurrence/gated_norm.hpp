// What recurrent mixers do with the outputs of their heads: an RMSNorm and a gate, of one of two
// orders. With n(x) = x / sqrt(mean(x^2) + epsilon) over each `width` columns:
//   y = n(x) weight f(z)      gated DeltaNet, retention (Sun et al. 2023), lightning attention
//   y = n(x f(z)) weight      gate_first: Mamba-2 (Dao and Gu 2024)
// f: sigmoid, silu, or 1 for none, where z is empty. x, z, y: [T, C] of one type (f32 or bf16), C a
// multiple of width; weight: f32 [width], of all norms of a row, or [C]. Arithmetic in fp32.
#pragma once

#include <cstdint>

#include "tensor/tensor.hpp"

namespace switchyard::kernels {

enum class GateFunction : std::uint8_t { none, sigmoid, silu };

struct GatedNorm {
  std::int64_t width = 0;
  GateFunction gate = GateFunction::none;
  bool gate_first = false;
  float epsilon = 1e-6f;
};

// y is written.
void gated_norm_forward(const GatedNorm& norm, const TensorView& x, const TensorView& z,
                        const TensorView& weight, const TensorView& y);
// dx, dz: written; dx may be dy. dweight: f32, like weight, added to in an order that no number of
// threads changes. workspace: u8, at least gated_norm_workspace_bytes(elements of the weight).
void gated_norm_backward(const GatedNorm& norm, const TensorView& dy, const TensorView& x,
                         const TensorView& z, const TensorView& weight, const TensorView& dx,
                         const TensorView& dz, const TensorView& dweight,
                         const TensorView& workspace);
std::int64_t gated_norm_workspace_bytes(std::int64_t num_weights);

}  // namespace switchyard::kernels
