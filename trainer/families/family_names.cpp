#include "trainer/families/family_names.hpp"

namespace switchyard::family_names {

namespace {

using enum TensorPart;

const Rules outside_layers = {
    {"embedding.weight", "model.embed_tokens.weight"},
    {"final_norm.weight", "model.norm.weight"},
    {"head.weight", "lm_head.weight"},
    {"layers.{l}.attention_norm.weight", "model.layers.{l}.input_layernorm.weight"},
    {"layers.{l}.feed_forward_norm.weight", "model.layers.{l}.post_attention_layernorm.weight"},
};

}  // namespace

const Rules& attention() {
  static const Rules rules = {
      {"layers.{l}.attention.qkv.weight", "model.layers.{l}.self_attn.q_proj.weight", query},
      {"layers.{l}.attention.qkv.weight", "model.layers.{l}.self_attn.k_proj.weight", key},
      {"layers.{l}.attention.qkv.weight", "model.layers.{l}.self_attn.v_proj.weight", value},
      {"layers.{l}.attention.output.weight", "model.layers.{l}.self_attn.o_proj.weight"},
  };
  return rules;
}

const Rules& qkv_bias() {
  static const Rules rules = {
      {"layers.{l}.attention.qkv.bias", "model.layers.{l}.self_attn.q_proj.bias", query},
      {"layers.{l}.attention.qkv.bias", "model.layers.{l}.self_attn.k_proj.bias", key},
      {"layers.{l}.attention.qkv.bias", "model.layers.{l}.self_attn.v_proj.bias", value},
  };
  return rules;
}

const Rules& output_bias() {
  static const Rules rules = {
      {"layers.{l}.attention.output.bias", "model.layers.{l}.self_attn.o_proj.bias"},
  };
  return rules;
}

const Rules& qk_norm() {
  static const Rules rules = {
      {"layers.{l}.attention.query_norm.weight", "model.layers.{l}.self_attn.q_norm.weight"},
      {"layers.{l}.attention.key_norm.weight", "model.layers.{l}.self_attn.k_norm.weight"},
  };
  return rules;
}

const Rules& dense() {
  static const Rules rules = {
      {"layers.{l}.feed_forward.gate_up.weight", "model.layers.{l}.mlp.gate_proj.weight", gate},
      {"layers.{l}.feed_forward.gate_up.weight", "model.layers.{l}.mlp.up_proj.weight", up},
      {"layers.{l}.feed_forward.down.weight", "model.layers.{l}.mlp.down_proj.weight"},
  };
  return rules;
}

const Rules& experts() {
  static const Rules rules = {
      {"layers.{l}.router.weight", "model.layers.{l}.mlp.gate.weight"},
      {"layers.{l}.experts.gate_up.weight", "model.layers.{l}.mlp.experts.{e}.gate_proj.weight",
       gate},
      {"layers.{l}.experts.gate_up.weight", "model.layers.{l}.mlp.experts.{e}.up_proj.weight", up},
      {"layers.{l}.experts.down.weight", "model.layers.{l}.mlp.experts.{e}.down_proj.weight"},
  };
  return rules;
}

const Rules& mixtral_experts() {
  static const Rules rules = {
      {"layers.{l}.router.weight", "model.layers.{l}.block_sparse_moe.gate.weight"},
      {"layers.{l}.experts.gate_up.weight",
       "model.layers.{l}.block_sparse_moe.experts.{e}.w1.weight", gate},
      {"layers.{l}.experts.gate_up.weight",
       "model.layers.{l}.block_sparse_moe.experts.{e}.w3.weight", up},
      {"layers.{l}.experts.down.weight", "model.layers.{l}.block_sparse_moe.experts.{e}.w2.weight"},
  };
  return rules;
}

const Rules& shared_expert() {
  static const Rules rules = {
      {"layers.{l}.shared_experts.gate_up.weight",
       "model.layers.{l}.mlp.shared_expert.gate_proj.weight", gate},
      {"layers.{l}.shared_experts.gate_up.weight",
       "model.layers.{l}.mlp.shared_expert.up_proj.weight", up},
      {"layers.{l}.shared_experts.down.weight",
       "model.layers.{l}.mlp.shared_expert.down_proj.weight"},
      {"layers.{l}.shared_experts.gate.weight", "model.layers.{l}.mlp.shared_expert_gate.weight"},
  };
  return rules;
}

const Rules& latent_attention() {
  static const Rules rules = {
      {"layers.{l}.attention.query.weight", "model.layers.{l}.self_attn.q_proj.weight",
       latent_query},
      {"layers.{l}.attention.query_down.weight", "model.layers.{l}.self_attn.q_a_proj.weight"},
      {"layers.{l}.attention.query_norm.weight", "model.layers.{l}.self_attn.q_a_layernorm.weight"},
      {"layers.{l}.attention.query_up.weight", "model.layers.{l}.self_attn.q_b_proj.weight",
       latent_query},
      {"layers.{l}.attention.kv_down.weight",
       "model.layers.{l}.self_attn.kv_a_proj_with_mqa.weight", latent_key},
      {"layers.{l}.attention.kv_norm.weight", "model.layers.{l}.self_attn.kv_a_layernorm.weight"},
      {"layers.{l}.attention.kv_up.weight", "model.layers.{l}.self_attn.kv_b_proj.weight"},
      {"layers.{l}.attention.output.weight", "model.layers.{l}.self_attn.o_proj.weight"},
  };
  return rules;
}

const Rules& shared_experts() {
  static const Rules rules = {
      {"layers.{l}.shared_experts.gate_up.weight",
       "model.layers.{l}.mlp.shared_experts.gate_proj.weight", gate},
      {"layers.{l}.shared_experts.gate_up.weight",
       "model.layers.{l}.mlp.shared_experts.up_proj.weight", up},
      {"layers.{l}.shared_experts.down.weight",
       "model.layers.{l}.mlp.shared_experts.down_proj.weight"},
  };
  return rules;
}

const Rules& router_bias() {
  static const Rules rules = {
      {"layers.{l}.router.bias", "model.layers.{l}.mlp.gate.e_score_correction_bias"},
  };
  return rules;
}

const Rules& sinks() {
  static const Rules rules = {
      {"layers.{l}.attention.sinks", "model.layers.{l}.self_attn.sinks", flat},
  };
  return rules;
}

const Rules& stacked_experts() {
  static const Rules rules = {
      {"layers.{l}.router.weight", "model.layers.{l}.mlp.router.weight"},
      {"layers.{l}.router.logit_bias", "model.layers.{l}.mlp.router.bias"},
      {"layers.{l}.experts.gate_up.weight", "model.layers.{l}.mlp.experts.gate_up_proj",
       stacked_gate_up},
      {"layers.{l}.experts.gate_up.bias", "model.layers.{l}.mlp.experts.gate_up_proj_bias",
       stacked_gate_up_bias},
      {"layers.{l}.experts.down.weight", "model.layers.{l}.mlp.experts.down_proj", stacked},
      {"layers.{l}.experts.down.bias", "model.layers.{l}.mlp.experts.down_proj_bias"},
  };
  return rules;
}

const Skips& old_buffers() {
  static const Skips skips = {
      {"model.layers.*.self_attn.rotary_emb.inv_freq", "computed from config.json"}};
  return skips;
}

const Skips& next_token_layers() {
  static const Skips skips = {
      {"model.layers.{n}.*", "a layer that predicts further tokens, behind the model's last"},
      {"model.layers.*.self_attn.rotary_emb.inv_freq", "computed from config.json"}};
  return skips;
}

Rules joined(std::initializer_list<Rules> parts) {
  Rules all = outside_layers;
  for (const Rules& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

}  // namespace switchyard::family_names
