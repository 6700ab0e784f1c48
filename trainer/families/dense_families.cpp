#include "trainer/families/family_configs.hpp"
#include "trainer/families/read_write.hpp"

namespace switchyard::family_configs {

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
void write_mistral(const Config& config, ConfigJson& json) {
  write_common(config, json);
  write_window(config, json);
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

}  // namespace switchyard::family_configs
