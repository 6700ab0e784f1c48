#include "trainer/families/read_write.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>

namespace switchyard {

namespace {

using kernels::RopeScaling;

// A training sequence of a published model's full length is seldom meant.
constexpr std::int64_t longest_sequence = 4096;

void read_yarn(const ConfigJson& json, RopeScalingConfig& scaling) {
  scaling.beta_fast = json.real("beta_fast", 32.0);
  scaling.beta_slow = json.real("beta_slow", 1.0);
  scaling.truncate = json.flag("truncate", true);
  scaling.mscale = json.real("mscale", 0.0);
  scaling.mscale_all_dim = json.real("mscale_all_dim", 0.0);
  kernels::RopeSpec spec;
  spec.scaling = RopeScaling::yarn;
  spec.factor = scaling.factor;
  spec.mscale = scaling.mscale;
  spec.mscale_all_dim = scaling.mscale_all_dim;
  const double magnitude = kernels::rope_magnitude(spec);
  if (json.has("attention_factor") &&
      std::abs(json.real("attention_factor") - magnitude) > 1e-6 * magnitude)
    json.refuse("attention_factor",
                fmt::format("with these numbers only {} is computed here", magnitude));
}

void read_rope_scaling(const ConfigJson& json, std::int64_t max_positions,
                       RopeScalingConfig& scaling) {
  const std::string type =
      json.text(json.has("rope_type") ? "rope_type" : "type", std::string("default"));
  if (json.real("partial_rotary_factor", 1.0) != 1.0)
    json.refuse("partial_rotary_factor", "only whole heads turn here");
  if (type == "default") return;
  scaling.factor = json.real("factor");
  scaling.original_length = json.integer("original_max_position_embeddings", max_positions);
  if (type == "linear") {
    scaling.kind = RopeScaling::linear;
    scaling.original_length = 0;
  } else if (type == "yarn") {
    scaling.kind = RopeScaling::yarn;
    read_yarn(json, scaling);
  } else if (type == "llama3") {
    scaling.kind = RopeScaling::llama3;
    scaling.beta_fast = json.real("high_freq_factor");
    scaling.beta_slow = json.real("low_freq_factor");
  } else {
    json.refuse(json.has("rope_type") ? "rope_type" : "type",
                "default, linear, yarn and llama3 are computed here");
  }
}

void read_rope(const ConfigJson& json, double default_theta, ModelConfig& model) {
  const bool is_new = json.has("rope_parameters");  // of transformers 5
  const ConfigJson scaling = json.object(is_new ? "rope_parameters" : "rope_scaling");
  model.rope_base = json.real("rope_theta", scaling.real("rope_theta", default_theta));
  if (is_new && scaling.has("rope_theta")) model.rope_base = scaling.real("rope_theta");
  model.rope_scaling = {};
  read_rope_scaling(scaling, json.integer("max_position_embeddings", 0), model.rope_scaling);
}

void write_rope(const ModelConfig& model, ConfigJson& json) {
  const RopeScalingConfig& scaling = model.rope_scaling;
  json.set("rope_theta", model.rope_base);
  ConfigJson object;
  switch (scaling.kind) {
    case RopeScaling::none:
    case RopeScaling::ntk:  // of which these files know no such form; differing_keys() tells
      return json.set_null("rope_scaling");
    case RopeScaling::linear:
      object.set_text("rope_type", "linear");
      break;
    case RopeScaling::yarn:
      object.set_text("rope_type", "yarn");
      object.set("beta_fast", scaling.beta_fast);
      object.set("beta_slow", scaling.beta_slow);
      if (!scaling.truncate) object.set_flag("truncate", false);
      if (scaling.mscale > 0) object.set("mscale", scaling.mscale);
      if (scaling.mscale_all_dim > 0) object.set("mscale_all_dim", scaling.mscale_all_dim);
      break;
    case RopeScaling::llama3:
      object.set_text("rope_type", "llama3");
      object.set("high_freq_factor", scaling.beta_fast);
      object.set("low_freq_factor", scaling.beta_slow);
      break;
  }
  object.set("factor", scaling.factor);
  if (scaling.kind != RopeScaling::linear)
    object.set("original_max_position_embeddings", scaling.original_length);
  json.set_object("rope_scaling", object);
}

// A list that is one part over and over becomes that part.
void set_attention(const std::vector<MixerConfig>& layers, ModelConfig& model) {
  for (std::size_t period = 1; period <= layers.size(); ++period) {
    bool repeats = true;
    for (std::size_t layer = period; layer < layers.size() && repeats; ++layer)
      repeats = layers[layer] == layers[layer - period];
    if (!repeats) continue;
    model.mixer.assign(layers.begin(), layers.begin() + static_cast<std::ptrdiff_t>(period));
    return;
  }
}

}  // namespace

void read_common(const ConfigJson& json, const CommonDefaults& defaults, Config& config) {
  ModelConfig& model = config.model;
  if (const std::string act = json.text("hidden_act", std::string("silu"));
      act != "silu" && act != "swish")
    json.refuse("hidden_act", "only silu is computed here");
  model.vocab_size = json.integer("vocab_size");
  model.hidden = json.integer("hidden_size");
  model.num_layers = json.integer("num_hidden_layers");
  model.num_heads = json.integer("num_attention_heads");
  model.num_kv_heads = json.integer(
      "num_key_value_heads", defaults.num_kv_heads > 0 ? defaults.num_kv_heads : model.num_heads);
  model.head_dim = defaults.has_head_dim ? json.integer("head_dim", defaults.head_dim) : 0;
  model.norm_epsilon = json.real("rms_norm_eps", defaults.norm_epsilon);
  model.tie_embeddings = json.flag("tie_word_embeddings", false);
  model.initial_std = json.real("initializer_range", 0.02);
  model.dense_intermediate = json.integer("intermediate_size");
  model.sequence_length = std::min(json.integer("max_position_embeddings", 2048), longest_sequence);
  model.mixer = {{}};
  read_rope(json, defaults.rope_theta, model);
  model.latent = {};
  model.qk_norm = QkNorm::none;
  model.qkv_bias = model.output_bias = false;
  config.experts = {};
  config.experts.num_experts = 0;
}

void write_common(const Config& config, ConfigJson& json) {
  const ModelConfig& model = config.model;
  json.set_text("hidden_act", "silu");
  json.set("vocab_size", model.vocab_size);
  json.set("hidden_size", model.hidden);
  json.set("num_hidden_layers", model.num_layers);
  json.set("num_attention_heads", model.num_heads);
  json.set("num_key_value_heads", model.num_kv_heads);
  json.set("head_dim", model.effective_head_dim());
  json.set("rms_norm_eps", model.norm_epsilon);
  json.set_flag("tie_word_embeddings", model.tie_embeddings);
  json.set("initializer_range", model.initial_std);
  json.set("intermediate_size", model.dense_intermediate);
  json.set("max_position_embeddings", model.sequence_length);
  write_rope(model, json);
}

namespace {

// slides(layer): whether a layer has a window, where layer_types does not say it.
template <class Slides>
void set_windows(const ConfigJson& json, std::optional<std::int64_t> default_window,
                 const Slides& slides, Config& config) {
  std::vector<MixerConfig> layers(
      static_cast<std::size_t>(std::clamp<std::int64_t>(config.model.num_layers, 1, 100'000)));
  const std::vector<std::string> types = json.texts("layer_types");
  if (!types.empty() && types.size() != layers.size())
    json.refuse("layer_types", "one entry for each of the layers is needed");
  for (std::size_t layer = 0; layer < layers.size(); ++layer) {
    const bool has_window = types.empty() ? slides(static_cast<std::int64_t>(layer))
                                          : types[layer] == "sliding_attention";
    if (!types.empty() && !has_window && types[layer] != "full_attention")
      json.refuse("layer_types", "full_attention and sliding_attention are computed here");
    if (has_window)
      layers[layer] = {.kind = MixerKind::window,
                       .window = json.integer("sliding_window", default_window),
                       .sinks = 0};
  }
  set_attention(layers, config.model);
}

}  // namespace

void read_windows(const ConfigJson& json, bool has_window, std::int64_t first_sliding,
                  Config& config) {
  set_windows(
      json, std::nullopt, [&](std::int64_t layer) { return has_window && layer >= first_sliding; },
      config);
}

void read_windows_in_turn(const ConfigJson& json, std::int64_t default_window, Config& config) {
  set_windows(
      json, default_window, [](std::int64_t layer) { return layer % 2 == 0; }, config);
}

std::int64_t window_of(const ModelConfig& model) {
  std::int64_t window = 0;
  for (std::int64_t layer = 0; layer < model.num_layers; ++layer)
    window = std::max(window, model.mixer_of_layer(layer).effective_window());
  return window;
}

void write_layer_types(const Config& config, ConfigJson& json) {
  const ModelConfig& model = config.model;
  std::vector<std::string> types;
  for (std::int64_t layer = 0; layer < model.num_layers; ++layer)
    types.emplace_back(model.mixer_of_layer(layer).effective_window() > 0 ? "sliding_attention"
                                                                          : "full_attention");
  json.set_texts("layer_types", types);
  if (const std::int64_t window = window_of(model); window > 0)
    json.set("sliding_window", window);
  else
    json.set_null("sliding_window");
}

void read_sparse_layers(const ConfigJson& json, Config& config) {
  ExpertsConfig& experts = config.experts;
  experts.every = json.integer("decoder_sparse_step", 1);
  experts.first_dense = 0;
  const std::vector<std::int64_t> listed = json.integers("mlp_only_layers");
  const std::set<std::int64_t> dense(listed.begin(), listed.end());
  while (dense.contains(experts.first_dense)) ++experts.first_dense;
  for (const std::int64_t layer : dense)
    if (layer >= experts.first_dense && experts.layer_has_experts(layer))
      json.refuse("mlp_only_layers", "only the first layers may lack experts here");
}

void write_sparse_layers(const Config& config, ConfigJson& json) {
  json.set("decoder_sparse_step", std::max<std::int64_t>(config.experts.every, 1));
  std::vector<std::int64_t> dense;
  for (std::int64_t layer = 0; layer < config.experts.first_dense; ++layer) dense.push_back(layer);
  json.set_integers("mlp_only_layers", dense);
}

void read_attention_bias(const ConfigJson& json, Config& config) {
  config.model.qkv_bias = config.model.output_bias = json.flag("attention_bias", false);
}
void write_attention_bias(const Config& config, ConfigJson& json) {
  json.set_flag("attention_bias", config.model.qkv_bias);
}

// One window, of all layers.
void write_window(const Config& config, ConfigJson& json) {
  if (const std::int64_t window = window_of(config.model); window > 0)
    json.set("sliding_window", window);
  else
    json.set_null("sliding_window");
}
void read_qwen_window(const ConfigJson& json, bool by_layer, Config& config) {
  const bool slides = json.flag("use_sliding_window", false) && json.has("sliding_window");
  const std::int64_t first = by_layer ? json.integer("max_window_layers", 28) : 0;
  read_windows(json, slides, first, config);
}
void write_qwen_window(const Config& config, ConfigJson& json) {
  write_layer_types(config, json);
  json.set_flag("use_sliding_window", window_of(config.model) > 0);
  json.set("max_window_layers", config.model.num_layers);
}

// The choices of a published router without groups: a softmax over all experts.
void read_top_k(const ConfigJson& json, std::int64_t num_experts, std::int64_t default_top_k,
                double default_balance, Config& config) {
  ExpertsConfig& to = config.experts;
  to.num_experts = num_experts;
  to.top_k = json.integer("num_experts_per_tok", default_top_k);
  to.every = 1;
  to.first_dense = 0;
  to.balance_weight = json.real("router_aux_loss_coef", default_balance);
  to.balance_reduction = BalanceReduction::mean;
  to.z_weight = 0;
  to.shared = {};
  to.router = {};
}

void write_top_k(const Config& config, ConfigJson& json) {
  json.set("num_experts_per_tok", config.experts.top_k);
  json.set("router_aux_loss_coef", config.experts.balance_weight);
  json.set_flag("output_router_logits", false);
}

}  // namespace switchyard
