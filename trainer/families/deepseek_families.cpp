#include "trainer/families/family_configs.hpp"
#include "trainer/families/read_write.hpp"

namespace switchyard::family_configs {

namespace {

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

}  // namespace

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

}  // namespace switchyard::family_configs
