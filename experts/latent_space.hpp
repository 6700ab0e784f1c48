// Experts that work in a narrower space than the residual stream: a map down before tokens are
// sent, a map up after what the experts returned was added up (NVIDIA: Nemotron 3, 2025,
// LatentMoE). The bytes on the wire and the experts' weights then go with D instead of H; the
// router sees all of x.
//   y_t = U (sum over the chosen experts e of w_{t,e} * expert_e(D x_t))
// Legend: T tokens, H hidden, D latent.
#pragma once

#include <string>

#include "kernels/products/linear.hpp"
#include "parallel/parameter.hpp"
#include "parallel/pass.hpp"
#include "tensor/record_tensor.hpp"

namespace switchyard {

class LatentSpace {
 public:
  // Registers `prefix`.down.weight [D, H] and `prefix`.up.weight [H, D], which writes to the
  // residual stream and begins with output_std.
  LatentSpace(ParameterStore& store, const std::string& prefix, std::int64_t hidden,
              std::int64_t latent, DType compute, float output_std, float initial_std);

  void pack_weights();
  // All in the compute type. x: [T, H] -> inner [T, D], written.
  void go_down(const TensorView& x, const TensorView& inner) const;
  // inner: [T, D] -> y [T, H], written.
  void go_up(const TensorView& inner, const TensorView& y) const;
  // The gradients, of which those of parameters are added to and reported ready. dy: [T, H];
  // inner: as go_up read it; d_inner: [T, D], written.
  void go_up_backward(const TensorView& dy, const TensorView& inner, const TensorView& d_inner,
                      const Pass& pass) const;
  // d_inner: [T, D]; x as go_down read it; dx: [T, H], written.
  void go_down_backward(const TensorView& d_inner, const TensorView& x, const TensorView& dx,
                        const Pass& pass) const;

 private:
  Parameter& down_;
  Parameter& up_;
  kernels::PackedWeight packed_down_, packed_up_;
};

}  // namespace switchyard
