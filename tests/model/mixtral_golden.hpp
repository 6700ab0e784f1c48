// What files made by Hugging Face's Mixtral (tests/golden) say of their model: the configuration,
// and which tensors are which parameter.
#pragma once

#include <hdf5.h>

#include <string>
#include <vector>

#include "data/hdf5/hdf5.hpp"
#include "tests/model/small_model.hpp"

namespace switchyard::test {

inline double real_attribute(const std::string& path, const char* key) {
  double value = 0;
  const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  const hid_t attribute = H5Aopen(file, key, H5P_DEFAULT);
  EXPECT_GE(H5Aread(attribute, H5T_NATIVE_DOUBLE, &value), 0) << path << ": attribute " << key;
  H5Aclose(attribute);
  H5Fclose(file);
  return value;
}

// Of files that have them: rotary positions that are stretched, a sliding window in all layers.
inline void read_long_context(const hdf5::File& file, ModelConfig& model) {
  if (file.has_attribute("/", "rope_scaling")) {
    RopeScalingConfig& scaling = model.rope_scaling;
    scaling.kind =
        choice_of<kernels::RopeScaling>(file.string_attribute("/", "rope_scaling")).value();
    scaling.factor = real_attribute(file.path(), "rope_factor");
    scaling.original_length = file.integer_attribute("/", "rope_length");
    scaling.beta_fast = real_attribute(file.path(), "beta_fast");
    scaling.beta_slow = real_attribute(file.path(), "beta_slow");
  }
  if (file.has_attribute("/", "window"))
    model.mixer = {
        {.kind = MixerKind::window, .window = file.integer_attribute("/", "window"), .sinks = 0}};
}

inline ModelCase case_of(const hdf5::File& file) {
  const auto attribute = [&](const char* key) { return file.integer_attribute("/", key); };
  ModelCase c;
  c.model.vocab_size = attribute("vocab_size");
  c.model.hidden = attribute("hidden");
  c.model.num_layers = attribute("num_layers");
  c.model.num_heads = attribute("num_heads");
  c.model.num_kv_heads = attribute("num_kv_heads");
  c.model.head_dim = attribute("head_dim");
  c.model.tie_embeddings = attribute("tie_embeddings") != 0;
  c.model.rope_base = real_attribute(file.path(), "rope_base");
  c.model.norm_epsilon = real_attribute(file.path(), "norm_epsilon");
  read_long_context(file, c.model);
  c.experts.num_experts = attribute("num_experts");
  c.experts.top_k = attribute("top_k");
  c.experts.intermediate = attribute("intermediate");
  c.experts.balance_weight = 0;
  c.experts.z_weight = 0;
  c.vocab_size_used = c.model.vocab_size;
  return c;
}

// The Hugging Face tensors that, one after the other, are our parameter `name`.
inline std::vector<std::string> golden_names(const std::string& name, std::int64_t num_experts) {
  if (name == "embedding.weight") return {"model.embed_tokens.weight"};
  if (name == "final_norm.weight") return {"model.norm.weight"};
  if (name == "head.weight") return {"lm_head.weight"};
  const std::size_t dot = name.find('.', std::string("layers.").size());
  const std::string layer = "model." + name.substr(0, dot);
  const std::string part = name.substr(dot);
  if (part == ".attention_norm.weight") return {layer + ".input_layernorm.weight"};
  if (part == ".feed_forward_norm.weight") return {layer + ".post_attention_layernorm.weight"};
  if (part == ".attention.output.weight") return {layer + ".self_attn.o_proj.weight"};
  if (part == ".router.weight") return {layer + ".block_sparse_moe.gate.weight"};
  if (part == ".attention.qkv.weight")
    return {layer + ".self_attn.q_proj.weight", layer + ".self_attn.k_proj.weight",
            layer + ".self_attn.v_proj.weight"};
  std::vector<std::string> names;
  for (std::int64_t e = 0; e < num_experts; ++e) {
    const std::string expert = layer + ".block_sparse_moe.experts." + std::to_string(e);
    if (part == ".experts.gate_up.weight") {
      names.push_back(expert + ".w1.weight");
      names.push_back(expert + ".w3.weight");
    } else if (part == ".experts.down.weight") {
      names.push_back(expert + ".w2.weight");
    }
  }
  return names;
}

}  // namespace switchyard::test
