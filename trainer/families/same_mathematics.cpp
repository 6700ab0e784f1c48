// What of a configuration a token's logits depend on, compared; and a family's config.json held to
// what it says when it is read again.
#include <cmath>

#include "trainer/families/family.hpp"

namespace switchyard {

namespace {

class Differences {
 public:
  template <class Value>
  void compare(const char* key, const Value& a, const Value& b) {
    if (!(a == b)) keys_.emplace_back(key);
  }
  std::vector<std::string> take() { return std::move(keys_); }

 private:
  std::vector<std::string> keys_;
};

void compare_rope(const ModelConfig& a, const ModelConfig& b, Differences& differences) {
  const RopeScalingConfig &x = a.rope_scaling, &y = b.rope_scaling;
  differences.compare("model.position", a.position.kind, b.position.kind);
  differences.compare("model.position.buckets", a.position.buckets, b.position.buckets);
  differences.compare("model.position.max_distance", a.position.max_distance,
                      b.position.max_distance);
  differences.compare("model.rope_base", a.rope_base, b.rope_base);
  differences.compare("model.rope_scaling.kind", x.kind, y.kind);
  if (x.kind == kernels::RopeScaling::none || x.kind != y.kind) return;
  differences.compare("model.rope_scaling.factor", x.factor, y.factor);
  if (x.kind != kernels::RopeScaling::yarn && x.kind != kernels::RopeScaling::llama3) return;
  differences.compare("model.rope_scaling.original_length", x.original_length, y.original_length);
  differences.compare("model.rope_scaling.beta_fast", x.beta_fast, y.beta_fast);
  differences.compare("model.rope_scaling.beta_slow", x.beta_slow, y.beta_slow);
  if (x.kind != kernels::RopeScaling::yarn) return;
  differences.compare("model.rope_scaling.truncate", x.truncate, y.truncate);
  differences.compare("model.rope_scaling.mscale", x.mscale, y.mscale);
  differences.compare("model.rope_scaling.mscale_all_dim", x.mscale_all_dim, y.mscale_all_dim);
}

void compare_latent(const LatentConfig& a, const LatentConfig& b, Differences& differences) {
  differences.compare("model.latent.kv_rank", a.kv_rank, b.kv_rank);
  if (a.kv_rank == 0 || b.kv_rank == 0) return;
  differences.compare("model.latent.q_rank", a.q_rank, b.q_rank);
  differences.compare("model.latent.nope_dim", a.nope_dim, b.nope_dim);
  differences.compare("model.latent.rope_dim", a.rope_dim, b.rope_dim);
  differences.compare("model.latent.value_dim", a.value_dim, b.value_dim);
}

void compare_model(const ModelConfig& a, const ModelConfig& b, Differences& differences) {
  differences.compare("model.vocab_size", a.vocab_size, b.vocab_size);
  differences.compare("model.hidden", a.hidden, b.hidden);
  differences.compare("model.num_layers", a.num_layers, b.num_layers);
  differences.compare("model.num_heads", a.num_heads, b.num_heads);
  differences.compare("model.num_kv_heads", a.num_kv_heads, b.num_kv_heads);
  differences.compare("model.head_dim", a.effective_head_dim(), b.effective_head_dim());
  differences.compare("model.norm_epsilon", a.norm_epsilon, b.norm_epsilon);
  differences.compare("model.tie_embeddings", a.tie_embeddings, b.tie_embeddings);
  differences.compare("model.qkv_bias", a.qkv_bias, b.qkv_bias);
  differences.compare("model.output_bias", a.output_bias, b.output_bias);
  differences.compare("model.qk_norm", a.qk_norm, b.qk_norm);
  differences.compare("model.clip_qkv", a.clip_qkv, b.clip_qkv);
  compare_rope(a, b, differences);
  compare_latent(a.latent, b.latent, differences);
  for (std::int64_t layer = 0; layer < a.num_layers && a.num_layers == b.num_layers; ++layer)
    if (!(a.mixer_of_layer(layer) == b.mixer_of_layer(layer)))
      return differences.compare("model.mixer", 0, 1);
}

void compare_router(const ExpertsConfig& a, const ExpertsConfig& b, Differences& differences) {
  const RouterConfig &x = a.router, &y = b.router;
  differences.compare("experts.router.kind", x.kind, y.kind);
  differences.compare("experts.router.score", x.score, y.score);
  differences.compare("experts.router.scale", x.scale, y.scale);
  differences.compare("experts.router.groups", x.groups, y.groups);
  differences.compare("experts.router.top_groups", x.top_groups, y.top_groups);
  if (x.groups > 1) differences.compare("experts.router.group_score", x.group_score, y.group_score);
  differences.compare("experts.normalize_top_k", a.weights_are_shares(), b.weights_are_shares());
  differences.compare("experts.router.logit_bias", x.logit_bias, y.logit_bias);
  differences.compare("experts.bias_rate", a.bias_rate > 0, b.bias_rate > 0);
}

void compare_experts(const ExpertsConfig& a, const ExpertsConfig& b, Differences& differences) {
  differences.compare("experts.num_experts", a.num_experts, b.num_experts);
  differences.compare("experts.top_k", a.top_k, b.top_k);
  differences.compare("experts.intermediate", a.intermediate, b.intermediate);
  differences.compare("experts.activation", a.activation, b.activation);
  if (a.activation == ExpertActivation::clamped_swiglu) {
    differences.compare("experts.swiglu_alpha", a.swiglu_alpha, b.swiglu_alpha);
    differences.compare("experts.swiglu_limit", a.swiglu_limit, b.swiglu_limit);
  }
  differences.compare("experts.bias", a.bias, b.bias);
  differences.compare("experts.latent", a.latent, b.latent);
  differences.compare("experts.shared.intermediate", a.shared_width(), b.shared_width());
  differences.compare("experts.shared.gate", a.shared.gate, b.shared.gate);
  compare_router(a, b, differences);
}

}  // namespace

std::vector<std::string> differing_keys(const Config& a, const Config& b) {
  Differences differences;
  compare_model(a.model, b.model, differences);
  bool has_experts = false, has_dense = false, same_layers = true;
  for (std::int64_t layer = 0; layer < a.model.num_layers; ++layer) {
    const bool here = a.experts.layer_has_experts(layer);
    (here ? has_experts : has_dense) = true;
    same_layers = same_layers && here == b.experts.layer_has_experts(layer);
  }
  differences.compare("experts.every, experts.first_dense", same_layers, true);
  if (has_experts) compare_experts(a.experts, b.experts, differences);
  if (!has_dense) return differences.take();
  differences.compare("model.feed_forward", a.model.feed_forward, b.model.feed_forward);
  if (a.model.feed_forward == b.model.feed_forward &&
      a.model.feed_forward == FeedForwardKind::dense)
    differences.compare("model.dense_intermediate", a.model.dense_intermediate,
                        b.model.dense_intermediate);
  return differences.take();
}

ConfigJson write_config(const Family& family, const Config& config,
                        std::vector<std::string>& unsayable) {
  ConfigJson json;
  json.set_texts("architectures", {std::string(family.architecture)});
  json.set_text("model_type", family.name);
  family.write(config, json);
  Config again;
  family.read(ConfigJson(json.dump(), std::string(family.name)), again);
  unsayable = differing_keys(config, again);
  return json;
}

}  // namespace switchyard
