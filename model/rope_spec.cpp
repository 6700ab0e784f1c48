#include "model/rope_spec.hpp"

namespace switchyard {

kernels::RopeSpec rope_spec(const ModelConfig& model) {
  const RopeScalingConfig& scaling = model.rope_scaling;
  kernels::RopeSpec spec;
  spec.base = model.rope_base;
  spec.scaling = scaling.kind;
  if (spec.scaling == kernels::RopeScaling::none) return spec;
  spec.factor = scaling.factor;
  if (spec.scaling != kernels::RopeScaling::yarn) return spec;
  spec.original_length = scaling.original_length;
  spec.beta_fast = scaling.beta_fast;
  spec.beta_slow = scaling.beta_slow;
  return spec;
}

}  // namespace switchyard
