// A linear map from a token to a few numbers, in fp32 whatever the compute type: the router's
// logits, the gate of shared experts. Legend: T tokens, H hidden, N numbers a token.
#pragma once

#include "kernels/products/linear.hpp"
#include "kernels/rows/elementwise.hpp"
#include "parallel/parameter.hpp"
#include "parallel/pass.hpp"

namespace switchyard {

// Multiplicative noise on a projection's input (kernels/routing/router_noise.hpp).
struct Jitter {
  float epsilon = 0;               // 0: none
  kernels::DropoutSite site = {};  // of all tokens
  TensorView sequence_ids = {};
};

class TokenProjection {
 public:
  // Registers the parameter of `spec`, [N, H].
  TokenProjection(ParameterStore& store, ParameterSpec spec);
  // Where tokens of another type than f32 are converted, block by block: f32 [block, H].
  static Tensor make_room(Device& device, std::int64_t num_tokens, std::int64_t hidden,
                          DType compute);
  // Two blocks, for projections of tokens with jitter.
  static Tensor make_jitter_room(Device& device, std::int64_t num_tokens, std::int64_t hidden);

  void pack_weights();
  // x: [T, H] in the compute type. out: f32 [T, N], written.
  void forward(const TensorView& x, const TensorView& out, const Tensor& room,
               const Jitter& jitter = {}) const;
  // dout: f32 [T, N]; x as in forward. Adds to dx [T, H], in fp32 and rounded once, and to the
  // parameter's gradient, which is reported ready.
  void backward(const TensorView& dout, const TensorView& x, const TensorView& dx,
                const Tensor& room, const Pass& pass, const Jitter& jitter = {}) const;

 private:
  Parameter& weight_;
  kernels::PackedWeight packed_;
};

}  // namespace switchyard
