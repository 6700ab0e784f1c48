// What the config.json of several families have in common.
#pragma once

#include "trainer/config.hpp"
#include "trainer/families/config_json.hpp"

namespace switchyard {

// What a family takes where config.json leaves it out.
struct CommonDefaults {
  std::int64_t num_kv_heads = 0;  // 0: num_attention_heads
  std::int64_t head_dim = 0;      // 0: hidden_size / num_attention_heads
  bool has_head_dim = true;       // whether there is such a key
  double norm_epsilon = 1e-6;
  double rope_theta = 10000;
};

// hidden_size, heads, norm, rotary positions, vocabulary, ties; a model without experts.
void read_common(const ConfigJson& json, const CommonDefaults& defaults, Config& config);
void write_common(const Config& config, ConfigJson& json);

// `sliding`: of each layer. layer_types, where a file has it, says more.
void read_windows(const ConfigJson& json, bool has_window, std::int64_t first_sliding,
                  Config& config);
// Every second layer has a window, from the first on, unless layer_types says else.
void read_windows_in_turn(const ConfigJson& json, std::int64_t default_window, Config& config);
void write_layer_types(const Config& config, ConfigJson& json);
// Of the layers with windows; 0: there are none.
std::int64_t window_of(const ModelConfig& model);

// decoder_sparse_step and mlp_only_layers.
void read_sparse_layers(const ConfigJson& json, Config& config);
void write_sparse_layers(const Config& config, ConfigJson& json);

// attention_bias: of queries, keys, values and the output alike.
void read_attention_bias(const ConfigJson& json, Config& config);
void write_attention_bias(const Config& config, ConfigJson& json);
// One window, of all layers.
void write_window(const Config& config, ConfigJson& json);
// use_sliding_window and, by_layer, max_window_layers, as Qwen's families have them.
void read_qwen_window(const ConfigJson& json, bool by_layer, Config& config);
void write_qwen_window(const Config& config, ConfigJson& json);

// The choices of a published router without groups: a softmax over all experts.
void read_top_k(const ConfigJson& json, std::int64_t num_experts, std::int64_t default_top_k,
                double default_balance, Config& config);
void write_top_k(const Config& config, ConfigJson& json);

}  // namespace switchyard
