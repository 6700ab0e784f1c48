#include "trainer/families/family.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "tensor/error.hpp"
#include "trainer/families/read_write.hpp"

namespace switchyard {

namespace {

using enum TensorPart;

const std::vector<NameRule> outside_layers = {
    {"embedding.weight", "model.embed_tokens.weight"},
    {"final_norm.weight", "model.norm.weight"},
    {"head.weight", "lm_head.weight"},
    {"layers.{l}.attention_norm.weight", "model.layers.{l}.input_layernorm.weight"},
    {"layers.{l}.feed_forward_norm.weight", "model.layers.{l}.post_attention_layernorm.weight"},
};
const std::vector<NameRule> attention = {
    {"layers.{l}.attention.qkv.weight", "model.layers.{l}.self_attn.q_proj.weight", query},
    {"layers.{l}.attention.qkv.weight", "model.layers.{l}.self_attn.k_proj.weight", key},
    {"layers.{l}.attention.qkv.weight", "model.layers.{l}.self_attn.v_proj.weight", value},
    {"layers.{l}.attention.output.weight", "model.layers.{l}.self_attn.o_proj.weight"},
};
const std::vector<NameRule> qkv_bias = {
    {"layers.{l}.attention.qkv.bias", "model.layers.{l}.self_attn.q_proj.bias", query},
    {"layers.{l}.attention.qkv.bias", "model.layers.{l}.self_attn.k_proj.bias", key},
    {"layers.{l}.attention.qkv.bias", "model.layers.{l}.self_attn.v_proj.bias", value},
};
const std::vector<NameRule> output_bias = {
    {"layers.{l}.attention.output.bias", "model.layers.{l}.self_attn.o_proj.bias"},
};
const std::vector<NameRule> qk_norm = {
    {"layers.{l}.attention.query_norm.weight", "model.layers.{l}.self_attn.q_norm.weight"},
    {"layers.{l}.attention.key_norm.weight", "model.layers.{l}.self_attn.k_norm.weight"},
};
const std::vector<NameRule> dense = {
    {"layers.{l}.feed_forward.gate_up.weight", "model.layers.{l}.mlp.gate_proj.weight", gate},
    {"layers.{l}.feed_forward.gate_up.weight", "model.layers.{l}.mlp.up_proj.weight", up},
    {"layers.{l}.feed_forward.down.weight", "model.layers.{l}.mlp.down_proj.weight"},
};
const std::vector<NameRule> experts = {
    {"layers.{l}.router.weight", "model.layers.{l}.mlp.gate.weight"},
    {"layers.{l}.experts.gate_up.weight", "model.layers.{l}.mlp.experts.{e}.gate_proj.weight",
     gate},
    {"layers.{l}.experts.gate_up.weight", "model.layers.{l}.mlp.experts.{e}.up_proj.weight", up},
    {"layers.{l}.experts.down.weight", "model.layers.{l}.mlp.experts.{e}.down_proj.weight"},
};
const std::vector<NameRule> mixtral_experts = {
    {"layers.{l}.router.weight", "model.layers.{l}.block_sparse_moe.gate.weight"},
    {"layers.{l}.experts.gate_up.weight", "model.layers.{l}.block_sparse_moe.experts.{e}.w1.weight",
     gate},
    {"layers.{l}.experts.gate_up.weight", "model.layers.{l}.block_sparse_moe.experts.{e}.w3.weight",
     up},
    {"layers.{l}.experts.down.weight", "model.layers.{l}.block_sparse_moe.experts.{e}.w2.weight"},
};
const std::vector<NameRule> shared_expert = {
    {"layers.{l}.shared_experts.gate_up.weight",
     "model.layers.{l}.mlp.shared_expert.gate_proj.weight", gate},
    {"layers.{l}.shared_experts.gate_up.weight",
     "model.layers.{l}.mlp.shared_expert.up_proj.weight", up},
    {"layers.{l}.shared_experts.down.weight",
     "model.layers.{l}.mlp.shared_expert.down_proj.weight"},
    {"layers.{l}.shared_experts.gate.weight", "model.layers.{l}.mlp.shared_expert_gate.weight"},
};

const std::vector<NameRule> latent_attention = {
    {"layers.{l}.attention.query.weight", "model.layers.{l}.self_attn.q_proj.weight", latent_query},
    {"layers.{l}.attention.query_down.weight", "model.layers.{l}.self_attn.q_a_proj.weight"},
    {"layers.{l}.attention.query_norm.weight", "model.layers.{l}.self_attn.q_a_layernorm.weight"},
    {"layers.{l}.attention.query_up.weight", "model.layers.{l}.self_attn.q_b_proj.weight",
     latent_query},
    {"layers.{l}.attention.kv_down.weight", "model.layers.{l}.self_attn.kv_a_proj_with_mqa.weight",
     latent_key},
    {"layers.{l}.attention.kv_norm.weight", "model.layers.{l}.self_attn.kv_a_layernorm.weight"},
    {"layers.{l}.attention.kv_up.weight", "model.layers.{l}.self_attn.kv_b_proj.weight"},
    {"layers.{l}.attention.output.weight", "model.layers.{l}.self_attn.o_proj.weight"},
};
const std::vector<NameRule> shared_experts = {
    {"layers.{l}.shared_experts.gate_up.weight",
     "model.layers.{l}.mlp.shared_experts.gate_proj.weight", gate},
    {"layers.{l}.shared_experts.gate_up.weight",
     "model.layers.{l}.mlp.shared_experts.up_proj.weight", up},
    {"layers.{l}.shared_experts.down.weight",
     "model.layers.{l}.mlp.shared_experts.down_proj.weight"},
};
const std::vector<NameRule> router_bias = {
    {"layers.{l}.router.bias", "model.layers.{l}.mlp.gate.e_score_correction_bias"},
};

const std::vector<NameRule> sinks = {
    {"layers.{l}.attention.sinks", "model.layers.{l}.self_attn.sinks", flat},
};
const std::vector<NameRule> stacked_experts = {
    {"layers.{l}.router.weight", "model.layers.{l}.mlp.router.weight"},
    {"layers.{l}.router.logit_bias", "model.layers.{l}.mlp.router.bias"},
    {"layers.{l}.experts.gate_up.weight", "model.layers.{l}.mlp.experts.gate_up_proj",
     stacked_gate_up},
    {"layers.{l}.experts.gate_up.bias", "model.layers.{l}.mlp.experts.gate_up_proj_bias",
     stacked_gate_up_bias},
    {"layers.{l}.experts.down.weight", "model.layers.{l}.mlp.experts.down_proj", stacked},
    {"layers.{l}.experts.down.bias", "model.layers.{l}.mlp.experts.down_proj_bias"},
};

const std::vector<Family::Skipped> old_buffers = {
    {"model.layers.*.self_attn.rotary_emb.inv_freq", "computed from config.json"}};

const std::vector<Family::Skipped> next_token_layers = {
    {"model.layers.{n}.*", "a layer that predicts further tokens, behind the model's last"},
    {"model.layers.*.self_attn.rotary_emb.inv_freq", "computed from config.json"}};

std::vector<NameRule> joined(std::initializer_list<std::vector<NameRule>> tables) {
  std::vector<NameRule> all = outside_layers;
  for (const std::vector<NameRule>& table : tables)
    all.insert(all.end(), table.begin(), table.end());
  return all;
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

void read_attention_bias(const ConfigJson& json, Config& config) {
  config.model.qkv_bias = config.model.output_bias = json.flag("attention_bias", false);
}
void write_attention_bias(const Config& config, ConfigJson& json) {
  json.set_flag("attention_bias", config.model.qkv_bias);
}

void read_llama(const ConfigJson& json, Config& config) {
  read_common(json, {}, config);
  read_attention_bias(json, config);
  if (json.flag("mlp_bias", false)) json.refuse("mlp_bias", "feed-forwards have no biases here");
}
void write_llama(const Config& config, ConfigJson& json) {
  write_common(config, json);
  write_attention_bias(config, json);
  json.set_flag("mlp_bias", false);
}

void read_mistral(const ConfigJson& json, Config& config) {
  read_common(json, {.num_kv_heads = 8}, config);
  constexpr std::int64_t default_window = 4096;
  const std::int64_t window =
      json.is_mentioned("sliding_window") ? json.integer("sliding_window", 0) : default_window;
  if (window > 0) config.model.mixer = {{.kind = MixerKind::window, .window = window, .sinks = 0}};
}
// One window, of all layers.
void write_window(const Config& config, ConfigJson& json) {
  if (const std::int64_t window = window_of(config.model); window > 0)
    json.set("sliding_window", window);
  else
    json.set_null("sliding_window");
}
void write_mistral(const Config& config, ConfigJson& json) {
  write_common(config, json);
  write_window(config, json);
}

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

void read_qwen3(const ConfigJson& json, Config& config) {
  read_common(json, {.num_kv_heads = 32, .head_dim = 128}, config);
  read_attention_bias(json, config);
  read_qwen_window(json, true, config);
  config.model.qk_norm = QkNorm::head;
}
void write_qwen3(const Config& config, ConfigJson& json) {
  write_common(config, json);
  write_attention_bias(config, json);
  write_qwen_window(config, json);
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
void write_qwen_experts(const Config& config, ConfigJson& json) {
  write_top_k(config, json);
  json.set("num_experts", config.experts.num_experts);
  json.set("moe_intermediate_size", config.experts.intermediate);
  json.set_flag("norm_topk_prob", config.experts.weights_are_shares());
  write_sparse_layers(config, json);
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

// What DeepSeek-V2 and V3 have in common.
void read_deepseek(const ConfigJson& json, Config& config) {
  read_common(json, {.has_head_dim = false}, config);
  ModelConfig& model = config.model;
  model.num_kv_heads = model.num_heads;
  if (json.flag("attention_bias", false))
    json.refuse("attention_bias", "latent attention has no biases here");
  if (!json.flag("rope_interleave", true))
    json.refuse("rope_interleave", "only weights with pairs beside each other are read here");
  const std::int64_t default_q_rank = 1536;
  model.latent = {
      .kv_rank = json.integer("kv_lora_rank", 512),
      .q_rank = json.is_mentioned("q_lora_rank") ? json.integer("q_lora_rank", 0) : default_q_rank,
      .nope_dim = json.integer("qk_nope_head_dim", 128),
      .rope_dim = json.integer("qk_rope_head_dim", 64),
      .value_dim = json.integer("v_head_dim", 128)};
  if (json.integer("moe_layer_freq", 1) != 1)
    json.refuse("moe_layer_freq", "every layer behind the first has experts here");
}

void read_deepseek_experts(const ConfigJson& json, std::int64_t num_experts,
                           std::int64_t num_shared, std::int64_t intermediate,
                           std::int64_t first_dense, Config& config) {
  read_top_k(json, json.integer("n_routed_experts", num_experts), 8, 0, config);
  ExpertsConfig& to = config.experts;
  to.intermediate = json.integer("moe_intermediate_size", intermediate);
  to.first_dense = json.integer("first_k_dense_replace", first_dense);
  to.shared = {.number = json.integer("n_shared_experts", num_shared),
               .intermediate = 0,
               .gate = SharedGate::none};
  to.balance_weight = json.real("aux_loss_alpha", 0.0);
}

void write_deepseek(const Config& config, ConfigJson& json) {
  write_common(config, json);
  const LatentConfig& latent = config.model.latent;
  json.set("head_dim", latent.rope_dim);  // as transformers has it
  json.set_flag("attention_bias", false);
  json.set("kv_lora_rank", latent.kv_rank);
  if (latent.q_rank > 0)
    json.set("q_lora_rank", latent.q_rank);
  else
    json.set_null("q_lora_rank");
  json.set("qk_nope_head_dim", latent.nope_dim);
  json.set("qk_rope_head_dim", latent.rope_dim);
  json.set("v_head_dim", latent.value_dim);
  const ExpertsConfig& from = config.experts;
  json.set("n_routed_experts", from.num_experts);
  json.set("num_experts_per_tok", from.top_k);
  json.set("moe_intermediate_size", from.intermediate);
  json.set("first_k_dense_replace", from.first_dense);
  json.set("moe_layer_freq", std::int64_t{1});
  json.set("n_shared_experts", from.intermediate > 0 ? from.shared_width() / from.intermediate : 0);
  json.set("aux_loss_alpha", from.balance_weight);
  json.set("routed_scaling_factor", from.router.scale);
  json.set("n_group", from.router.groups);
  json.set("topk_group", from.router.top_groups);
}

void read_deepseek_v2(const ConfigJson& json, Config& config) {
  read_deepseek(json, config);
  read_deepseek_experts(json, 64, 2, 1407, 0, config);
  ExpertsConfig& to = config.experts;
  const std::string method = json.text("topk_method", std::string("greedy"));
  if (method == "group_limited_greedy") {
    to.router.groups = json.integer("n_group");
    to.router.top_groups = json.integer("topk_group");
  } else if (method != "greedy") {
    json.refuse("topk_method", "greedy and group_limited_greedy are computed for this family");
  }
  if (json.text("scoring_func", std::string("softmax")) != "softmax")
    json.refuse("scoring_func", "only softmax is computed for this family");
  to.router.scale = json.real("routed_scaling_factor", 1.0);
  to.normalize_top_k = false;
  if (json.flag("norm_topk_prob", false))
    json.refuse("norm_topk_prob", "transformers does not compute it for this family");
}
void write_deepseek_v2(const Config& config, ConfigJson& json) {
  write_deepseek(config, json);
  json.set_text("topk_method",
                config.experts.router.groups > 1 ? "group_limited_greedy" : "greedy");
  json.set_text("scoring_func", "softmax");
  json.set_flag("norm_topk_prob", false);
}

void read_deepseek_v3(const ConfigJson& json, Config& config) {
  read_deepseek(json, config);
  read_deepseek_experts(json, 256, 1, 2048, 3, config);
  ExpertsConfig& to = config.experts;
  if (json.text("topk_method", std::string("noaux_tc")) != "noaux_tc")
    json.refuse("topk_method", "only noaux_tc is computed for this family");
  if (json.text("scoring_func", std::string("sigmoid")) != "sigmoid")
    json.refuse("scoring_func", "only sigmoid is computed for this family");
  to.router.score = RouterScore::sigmoid;
  to.router.groups = json.integer("n_group", 8);
  to.router.top_groups = json.integer("topk_group", 4);
  to.router.group_score = kernels::GroupScore::best_two;
  to.router.scale = json.real("routed_scaling_factor", 2.5);
  to.normalize_top_k = json.flag("norm_topk_prob", true);
  constexpr double published_rate = 0.001;  // DeepSeek-V3, 2024, section 4.2
  to.bias_rate = published_rate;
}
void write_deepseek_v3(const Config& config, ConfigJson& json) {
  write_deepseek(config, json);
  json.set_text("topk_method", "noaux_tc");
  json.set_text("scoring_func", "sigmoid");
  json.set_flag("norm_topk_prob", config.experts.weights_are_shares());
  json.set_flag("rope_interleave", true);
}

const std::vector<Family>& all() {
  static const std::vector<Family> table = {
      {"llama", "LlamaForCausalLM", read_llama, write_llama,
       joined({attention, qkv_bias, output_bias, dense}), old_buffers},
      {"mistral", "MistralForCausalLM", read_mistral, write_mistral, joined({attention, dense}),
       old_buffers},
      {"qwen3", "Qwen3ForCausalLM", read_qwen3, write_qwen3,
       joined({attention, qkv_bias, output_bias, qk_norm, dense})},
      {"mixtral", "MixtralForCausalLM", read_mixtral, write_mixtral,
       joined({attention, mixtral_experts}), old_buffers},
      {"olmoe", "OlmoeForCausalLM", read_olmoe, write_olmoe, joined({attention, qk_norm, experts})},
      {"qwen2_moe", "Qwen2MoeForCausalLM", read_qwen2_moe, write_qwen2_moe,
       joined({attention, qkv_bias, dense, experts, shared_expert})},
      {"qwen3_moe", "Qwen3MoeForCausalLM", read_qwen3_moe, write_qwen3_moe,
       joined({attention, qkv_bias, output_bias, qk_norm, dense, experts})},
      {"gpt_oss", "GptOssForCausalLM", read_gpt_oss, write_gpt_oss,
       joined({attention, qkv_bias, output_bias, sinks, stacked_experts})},
      {"deepseek_v2", "DeepseekV2ForCausalLM", read_deepseek_v2, write_deepseek_v2,
       joined({latent_attention, dense, experts, shared_experts}), next_token_layers},
      {"deepseek_v3", "DeepseekV3ForCausalLM", read_deepseek_v3, write_deepseek_v3,
       joined({latent_attention, dense, experts, shared_experts, router_bias}), next_token_layers},
  };
  return table;
}

}  // namespace

std::span<const Family> families() {
  return all();
}

const Family& family_of(std::string_view name) {
  std::vector<std::string_view> names;
  for (const Family& family : all()) {
    if (family.name == name) return family;
    names.push_back(family.name);
  }
  throw DataError(fmt::format("'{}' is no family of models known here; known are {}", name,
                              fmt::join(names, ", ")));
}

}  // namespace switchyard
