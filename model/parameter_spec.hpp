// The specs of the model's dense parameters: whole on every rank, so reduced over all data and
// context ranks. Their names are part of the checkpoint format and depend on the model alone.
#pragma once

#include <cmath>
#include <string>
#include <utility>

#include "model/config.hpp"
#include "parallel/parameter.hpp"

namespace switchyard {

// A matrix, drawn from normal(0, std). Weights decay, the embedding's table among them. keys: of
// the configuration, that decide its shape.
inline ParameterSpec weight_spec(std::string name, const Shape& shape, std::string keys,
                                 double std) {
  ParameterSpec spec;
  spec.name = std::move(name);
  spec.global_shape = shape;
  spec.keys = std::move(keys);
  spec.initial_std = static_cast<float>(std);
  return spec;
}

// The gain of an RMSNorm: starts at one, does not decay.
inline ParameterSpec norm_spec(std::string name, std::int64_t hidden) {
  ParameterSpec spec = weight_spec(std::move(name), {hidden}, "model.hidden", 0);
  spec.decay = false;
  spec.initial = Initial::ones;
  return spec;
}

// A vector added to the rows of a product: starts at zero, does not decay.
inline ParameterSpec bias_spec(std::string name, std::int64_t width, std::string keys) {
  ParameterSpec spec = weight_spec(std::move(name), {width}, std::move(keys), 0);
  spec.decay = false;
  spec.initial = Initial::zeros;
  return spec;
}

// Sink logits of each head: start at zero, do not decay.
inline ParameterSpec sink_spec(std::string name, std::int64_t num_heads, std::int64_t num_sinks) {
  ParameterSpec spec =
      weight_spec(std::move(name), {num_heads, num_sinks}, "model.num_heads, model.mixer", 0);
  spec.decay = false;
  spec.initial = Initial::zeros;
  return spec;
}

// What each head adds to scores by bucket of distance: starts at zero, does not decay.
inline ParameterSpec relative_spec(std::string name, std::int64_t num_heads,
                                   std::int64_t num_buckets) {
  ParameterSpec spec =
      weight_spec(std::move(name), {num_heads, num_buckets},
                  "model.num_heads, model.position.kind, model.position.buckets", 0);
  spec.decay = false;
  spec.initial = Initial::zeros;
  return spec;
}

// Deviation of weights that write to the residual stream: 2 num_layers of them add up there
// (Radford et al., "Language models are unsupervised multitask learners", 2019).
inline double residual_std(const ModelConfig& model) {
  return model.initial_std / std::sqrt(2.0 * static_cast<double>(model.num_layers));
}

}  // namespace switchyard
