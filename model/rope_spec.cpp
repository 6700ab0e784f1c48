#include "model/rope_spec.hpp"

#include <cmath>

namespace switchyard {

kernels::RopeSpec rope_spec(const ModelConfig& model) {
  const RopeScalingConfig& scaling = model.rope_scaling;
  kernels::RopeSpec spec;
  spec.base = model.rope_base;
  spec.scaling = scaling.kind;
  if (spec.scaling == kernels::RopeScaling::none) return spec;
  spec.factor = scaling.factor;
  if (spec.scaling != kernels::RopeScaling::yarn && spec.scaling != kernels::RopeScaling::llama3)
    return spec;
  spec.original_length = scaling.original_length;
  spec.beta_fast = scaling.beta_fast;
  spec.beta_slow = scaling.beta_slow;
  spec.truncate = scaling.truncate;
  spec.mscale = scaling.mscale;
  spec.mscale_all_dim = scaling.mscale_all_dim;
  return spec;
}

float attention_scale(const ModelConfig& model) {
  const double scale = 1 / std::sqrt(static_cast<double>(model.effective_head_dim()));
  const RopeScalingConfig& scaling = model.rope_scaling;
  if (!model.has_latent_attention() || scaling.kind != kernels::RopeScaling::yarn ||
      scaling.mscale_all_dim == 0)
    return static_cast<float>(scale);
  const double magnitude = kernels::yarn_magnitude(scaling.factor, scaling.mscale_all_dim);
  return static_cast<float>(scale * magnitude * magnitude);
}

}  // namespace switchyard
