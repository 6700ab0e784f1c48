// Adaptive spans (Sukhbaatar et al., "Adaptive Attention Span in Transformers", 2019): each head
// learns how far back it looks, up to the layer's window S. With a ramp of R tokens and the head's
// span z = S f, a weight of the softmax at distance d is multiplied by
//   m(d) = clamp((R + z - d) / R, 0, 1)
// that is, log m(d) is added to the score; what is behind z + R gets a weight below 1e-37. f starts
// at 0 and is cut to [0, 1] after every step. A penalty draws spans in: the gradient of
// weight * S * mean of f over the heads, once a step (the reported loss is without it).
// Legend: T tokens, A num_heads.
#pragma once

#include <string>
#include <vector>

#include "kernels/attention/distance_bias.hpp"
#include "model/config.hpp"
#include "parallel/parameter.hpp"
#include "parallel/pass.hpp"

namespace switchyard {

class AdaptiveSpan {
 public:
  // Registers `prefix`.span [A]: f, which does not decay.
  AdaptiveSpan(ParameterStore& store, const std::string& prefix, const ModelConfig& model,
               const MixerConfig& mixer);

  // The head's one parameter, for each distance; none without a ramp.
  static std::vector<std::int32_t> parameters(const MixerConfig& mixer);

  void pack_weights();
  kernels::DistanceBias bias() const { return {values_, parameters_, 1}; }
  // d_rows: f32 [T, A], of each row by itself; ones: f32 [T, 1]. Adds to the gradient, with this
  // rank's share of the penalty's, and reports it ready.
  void backward(const TensorView& d_rows, const TensorView& ones, const Pass& pass) const;

 private:
  Parameter& fractions_;
  std::int64_t max_span_;
  std::int64_t ramp_;
  double weight_;
  std::vector<std::int32_t> parameters_;
  Tensor values_;  // f32 [A, 2 S]: log m, and its slope by f
};

}  // namespace switchyard
