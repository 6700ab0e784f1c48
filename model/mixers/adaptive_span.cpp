#include "model/mixers/adaptive_span.hpp"

#include "kernels/products/linear.hpp"
#include "model/parameter_spec.hpp"

namespace switchyard {

AdaptiveSpan::AdaptiveSpan(ParameterStore& store, const std::string& prefix,
                           const ModelConfig& model, const MixerConfig& mixer)
    : fractions_(
          store.add(bias_spec(prefix + ".span", model.num_heads, "model.num_heads, model.mixer"))),
      max_span_(mixer.window),
      ramp_(mixer.ramp),
      weight_(mixer.span_weight),
      parameters_(parameters(mixer)),
      values_(store.device(), Purpose::parameter, DType::f32,
              {model.num_heads, 2 * std::ssize(parameters_)}) {}

std::vector<std::int32_t> AdaptiveSpan::parameters(const MixerConfig& mixer) {
  return std::vector<std::int32_t>(mixer.ramp > 0 ? static_cast<std::size_t>(mixer.window) : 0, 0);
}

void AdaptiveSpan::pack_weights() {
  kernels::span_bias(fractions_.value(), max_span_, ramp_, values_);
}

// The sum over rows is a product with a column of ones. Of the penalty each rank and micro-step
// adds the share of its tokens.
void AdaptiveSpan::backward(const TensorView& d_rows, const TensorView& ones,
                            const Pass& pass) const {
  const TensorView& gradient = fractions_.gradient();
  kernels::linear_backward_weight(d_rows, ones, gradient.reshape({gradient.numel(), 1}));
  const double share = static_cast<double>(d_rows.rows()) / pass.num_global_tokens;
  kernels::add_span_penalty(weight_ * static_cast<double>(max_span_) * share, gradient);
  pass.gradient_ready(fractions_);
}

}  // namespace switchyard
