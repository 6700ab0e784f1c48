#include "trainer/families/family_configs.hpp"
#include "trainer/families/read_write.hpp"

namespace switchyard::family_configs {

namespace {

void write_qwen_experts(const Config& config, ConfigJson& json) {
  write_top_k(config, json);
  json.set("num_experts", config.experts.num_experts);
  json.set("moe_intermediate_size", config.experts.intermediate);
  json.set_flag("norm_topk_prob", config.experts.weights_are_shares());
  write_sparse_layers(config, json);
}

}  // namespace

void read_mixtral(const ConfigJson& json, Config& config) {
  read_common(json, {.num_kv_heads = 8, .norm_epsilon = 1e-5, .rope_theta = 1e6}, config);
  if (const std::int64_t window = json.integer("sliding_window", 0); window > 0)
    config.model.mixer = {{.kind = MixerKind::window, .window = window, .sinks = 0}};
  read_top_k(json, json.integer("num_local_experts", 8), 2, 0.001, config);
  config.experts.intermediate = config.model.dense_intermediate;
  config.experts.normalize_top_k = true;
  config.experts.router.jitter = json.real("router_jitter_noise", 0.0);
}
void write_mixtral(const Config& config, ConfigJson& json) {
  write_common(config, json);
  write_window(config, json);
  write_top_k(config, json);
  json.set("intermediate_size", config.experts.intermediate);
  json.set("num_local_experts", config.experts.num_experts);
  json.set("router_jitter_noise", config.experts.router.jitter);
}

void read_olmoe(const ConfigJson& json, Config& config) {
  read_common(json, {.has_head_dim = false, .norm_epsilon = 1e-5}, config);
  if (json.flag("attention_bias", false))
    json.refuse("attention_bias", "OLMoE with biases is not computed here");
  config.model.clip_qkv = json.real("clip_qkv", 0.0);
  if (config.model.clip_qkv < 0) json.refuse("clip_qkv", "it must be above 0");
  config.model.qk_norm = QkNorm::whole;
  read_top_k(json, json.integer("num_experts", 64), 8, 0.01, config);
  config.experts.intermediate = config.model.dense_intermediate;
  config.experts.normalize_top_k = json.flag("norm_topk_prob", false);
}
void write_olmoe(const Config& config, ConfigJson& json) {
  write_common(config, json);
  write_top_k(config, json);
  json.set_flag("attention_bias", false);
  if (config.model.clip_qkv > 0)
    json.set("clip_qkv", config.model.clip_qkv);
  else
    json.set_null("clip_qkv");
  json.set("intermediate_size", config.experts.intermediate);
  json.set("num_experts", config.experts.num_experts);
  json.set_flag("norm_topk_prob", config.experts.weights_are_shares());
}

void read_qwen2_moe(const ConfigJson& json, Config& config) {
  read_common(json, {.num_kv_heads = 16, .has_head_dim = false}, config);
  read_qwen_window(json, true, config);
  config.model.qkv_bias = json.flag("qkv_bias", true);
  read_top_k(json, json.integer("num_experts", 60), 4, 0.001, config);
  ExpertsConfig& to = config.experts;
  to.intermediate = json.integer("moe_intermediate_size", 1408);
  to.normalize_top_k = json.flag("norm_topk_prob", false);
  to.shared = {.number = 1,
               .intermediate = json.integer("shared_expert_intermediate_size", 5632),
               .gate = SharedGate::sigmoid};
  read_sparse_layers(json, config);
}
void write_qwen2_moe(const Config& config, ConfigJson& json) {
  write_common(config, json);
  write_qwen_window(config, json);
  json.set_flag("qkv_bias", config.model.qkv_bias);
  write_qwen_experts(config, json);
  json.set("shared_expert_intermediate_size", config.experts.shared_width());
}

void read_qwen3_moe(const ConfigJson& json, Config& config) {
  read_common(json, {.num_kv_heads = 4}, config);
  read_attention_bias(json, config);
  read_qwen_window(json, false, config);
  config.model.qk_norm = QkNorm::head;
  const char* number = json.has("num_local_experts") ? "num_local_experts" : "num_experts";
  read_top_k(json, json.integer(number, 128), 8, 0.001, config);
  config.experts.intermediate = json.integer("moe_intermediate_size", 768);
  config.experts.normalize_top_k = json.flag("norm_topk_prob", false);
  read_sparse_layers(json, config);
}
void write_qwen3_moe(const Config& config, ConfigJson& json) {
  write_common(config, json);
  write_attention_bias(config, json);
  write_qwen_window(config, json);
  write_qwen_experts(config, json);
}

void read_gpt_oss(const ConfigJson& json, Config& config) {
  read_common(json,
              {.num_kv_heads = 8, .head_dim = 64, .norm_epsilon = 1e-5, .rope_theta = 150'000},
              config);
  ModelConfig& model = config.model;
  model.qkv_bias = model.output_bias = json.flag("attention_bias", true);
  read_windows_in_turn(json, 128, config);
  for (MixerConfig& layer : model.mixer) layer.sinks = 1;
  read_top_k(json, json.integer("num_local_experts", 128), 4, 0.001, config);
  ExpertsConfig& to = config.experts;
  to.intermediate = model.dense_intermediate;
  to.router.softmax_over = SoftmaxOver::chosen;
  to.router.logit_bias = true;
  to.bias = true;
  to.activation = ExpertActivation::clamped_swiglu;
  to.swiglu_alpha = json.real("swiglu_alpha", 1.702);
  to.swiglu_limit = json.real("swiglu_limit", 7.0);
}
void write_gpt_oss(const Config& config, ConfigJson& json) {
  write_common(config, json);
  write_attention_bias(config, json);
  write_layer_types(config, json);
  write_top_k(config, json);
  json.set("intermediate_size", config.experts.intermediate);
  json.set("num_local_experts", config.experts.num_experts);
  json.set("swiglu_alpha", config.experts.swiglu_alpha);
  json.set("swiglu_limit", config.experts.swiglu_limit);
}

}  // namespace switchyard::family_configs
