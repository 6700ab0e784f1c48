#include "model/mixers/recurrent_form.hpp"

#include <cmath>
#include <string>

#include "tensor/error.hpp"

namespace switchyard {

namespace {

using kernels::FeatureMap;
using kernels::GateFunction;

std::int64_t or_else(std::int64_t value, std::int64_t other) {
  return value > 0 ? value : other;
}

// Retention (Sun et al. 2023, section 2.2): log(1 - 2^{-5 - h}) of head h = 0 ...
std::vector<float> retention_decay(std::int64_t num_heads) {
  std::vector<float> decay;
  for (std::int64_t h = 0; h < num_heads; ++h)
    decay.push_back(static_cast<float>(std::log1p(-std::exp2(-5.0 - static_cast<double>(h)))));
  return decay;
}

// Lightning attention as MiniMax-01 has it: -2^{-8 h / A} (1 - l / (N - 1 + 1e-5) + 1e-5) of head
// h = 1 ... A in layer l of N.
std::vector<float> lightning_decay(std::int64_t num_heads, std::int64_t layer,
                                   std::int64_t num_layers) {
  const double last = static_cast<double>(num_layers - 1) + 1e-5;
  const double factor = 1 - static_cast<double>(layer) / last + 1e-5;
  std::vector<float> decay;
  for (std::int64_t h = 1; h <= num_heads; ++h)
    decay.push_back(static_cast<float>(
        -std::exp2(-8.0 * static_cast<double>(h) / static_cast<double>(num_heads)) * factor));
  return decay;
}

float inverse_root(std::int64_t width) {
  return static_cast<float>(1 / std::sqrt(static_cast<double>(width)));
}

RecurrentForm sizes_of(const ModelConfig& model, const MixerConfig& mixer) {
  RecurrentForm form;
  form.num_heads = or_else(mixer.heads, model.num_heads);
  form.num_groups =
      or_else(mixer.groups, mixer.kind == MixerKind::ssd ? std::int64_t{1} : form.num_heads);
  form.key_width = or_else(mixer.key_width, model.effective_head_dim());
  form.value_width = or_else(mixer.value_width, model.effective_head_dim());
  form.chunk = mixer.chunk;
  form.conv = mixer.conv;
  form.scale = inverse_root(form.key_width);
  return form;
}

}  // namespace

RecurrentForm recurrent_form(const ModelConfig& model, std::int64_t layer) {
  const MixerConfig& mixer = model.mixer_of_layer(layer);
  RecurrentForm form = sizes_of(model, mixer);
  const auto norm_of = [&](std::int64_t width, std::int64_t num_weights, GateFunction gate) {
    form.has_norm = true;
    form.norm_weights = num_weights;
    form.norm = {.width = width, .gate = gate, .epsilon = static_cast<float>(model.norm_epsilon)};
  };
  const auto norm_of_heads = [&](GateFunction gate) {
    norm_of(form.value_width, form.value_width, gate);
  };
  switch (mixer.kind) {
    case MixerKind::full:
    case MixerKind::window:
    case MixerKind::blocks:
    case MixerKind::segment:
    case MixerKind::hierarchical:
    case MixerKind::lsh:
    case MixerKind::conv_attention:
      expect(false, "a recurrent mixer");
      break;
    case MixerKind::linear:
      form.key_map =
          mixer.features == LinearFeatures::taylor ? FeatureMap::taylor : FeatureMap::elu_plus_one;
      if (mixer.features == LinearFeatures::performer) {
        form.num_random_features = or_else(mixer.num_features, 4 * form.key_width);
        form.random_features = random_key(static_cast<std::uint64_t>(mixer.feature_seed),
                                          "random features " + std::to_string(layer));
      }
      form.normalized = true;
      break;
    case MixerKind::retention:
      form.rotates = model.turns_positions();
      form.decay = retention_decay(form.num_heads);
      norm_of_heads(GateFunction::silu);
      break;
    case MixerKind::lightning:
      form.key_map = form.value_map = FeatureMap::silu;
      form.scale = 1;
      form.decay = lightning_decay(form.num_heads, layer, model.num_layers);
      norm_of(form.value_cols(), form.value_cols(), GateFunction::sigmoid);
      break;
    case MixerKind::ssd:
      form.key_map = form.value_map = FeatureMap::silu;
      form.conv_bias = form.conv > 0;
      form.scale = 1;
      form.learns_decay = form.has_steps = true;
      norm_of(form.value_cols() / form.num_groups, form.value_cols(), GateFunction::silu);
      form.norm.gate_first = true;
      break;
    case MixerKind::delta:
    case MixerKind::gated_delta:
      form.key_map = FeatureMap::silu_unit;
      form.value_map = FeatureMap::silu;
      form.delta = true;
      form.most_beta = mixer.negative_eigenvalues ? 2.0f : 1.0f;
      form.learns_decay = mixer.kind == MixerKind::gated_delta;
      norm_of_heads(form.learns_decay ? GateFunction::silu : GateFunction::none);
      break;
    case MixerKind::infini:
      form.key_map = FeatureMap::elu_plus_one;
      form.normalized = true;
      form.segment = mixer.segment;
      form.local_rotates = model.turns_positions();
      form.value_width = form.key_width;
      break;
  }
  return form;
}

kernels::RecurrenceShape recurrence_shape(const RecurrentForm& form, std::int64_t num_sequences,
                                          std::span<const PositionRange> runs) {
  return {.num_sequences = num_sequences,
          .runs = runs,
          .num_heads = form.num_heads,
          .num_groups = form.num_groups,
          .key_width = form.feature_width(),
          .value_width = form.value_width,
          .chunk = form.segment > 0 ? form.segment : form.chunk,
          .scale = form.scale,
          .delta = form.delta,
          .normalized = form.normalized,
          .exclusive = form.segment > 0};
}

}  // namespace switchyard
