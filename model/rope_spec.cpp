#include "model/rope_spec.hpp"

#include <fmt/core.h>

#include "tensor/error.hpp"

namespace switchyard {

namespace {

kernels::RopeScaling rope_scaling_of(const std::string& kind) {
  if (kind == "none") return kernels::RopeScaling::none;
  if (kind == "linear") return kernels::RopeScaling::linear;
  if (kind == "ntk") return kernels::RopeScaling::ntk;
  if (kind == "yarn") return kernels::RopeScaling::yarn;
  throw ConfigError(fmt::format(
      "model.rope_scaling.kind: '{}' is not a kind of scaling; use none, linear, ntk or yarn",
      kind));
}

}  // namespace

kernels::RopeSpec rope_spec(const ModelConfig& model) {
  const RopeScalingConfig& scaling = model.rope_scaling;
  kernels::RopeSpec spec;
  spec.base = model.rope_base;
  spec.scaling = rope_scaling_of(scaling.kind);
  if (spec.scaling == kernels::RopeScaling::none) return spec;
  spec.factor = scaling.factor;
  if (spec.scaling != kernels::RopeScaling::yarn) return spec;
  spec.original_length = scaling.original_length;
  spec.beta_fast = scaling.beta_fast;
  spec.beta_slow = scaling.beta_slow;
  return spec;
}

}  // namespace switchyard
