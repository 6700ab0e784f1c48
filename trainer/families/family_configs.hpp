// What config.json says of a family, to the keys model and experts of a configuration and back
// (Family::read, Family::write).
#pragma once

#include "trainer/config.hpp"
#include "trainer/families/config_json.hpp"

namespace switchyard::family_configs {

// dense_families.cpp
void read_llama(const ConfigJson& json, Config& config);
void write_llama(const Config& config, ConfigJson& json);
void read_mistral(const ConfigJson& json, Config& config);
void write_mistral(const Config& config, ConfigJson& json);
void read_qwen3(const ConfigJson& json, Config& config);
void write_qwen3(const Config& config, ConfigJson& json);

// expert_families.cpp
void read_mixtral(const ConfigJson& json, Config& config);
void write_mixtral(const Config& config, ConfigJson& json);
void read_olmoe(const ConfigJson& json, Config& config);
void write_olmoe(const Config& config, ConfigJson& json);
void read_qwen2_moe(const ConfigJson& json, Config& config);
void write_qwen2_moe(const Config& config, ConfigJson& json);
void read_qwen3_moe(const ConfigJson& json, Config& config);
void write_qwen3_moe(const Config& config, ConfigJson& json);
void read_gpt_oss(const ConfigJson& json, Config& config);
void write_gpt_oss(const Config& config, ConfigJson& json);

// deepseek_families.cpp
void read_deepseek_v2(const ConfigJson& json, Config& config);
void write_deepseek_v2(const Config& config, ConfigJson& json);
void read_deepseek_v3(const ConfigJson& json, Config& config);
void write_deepseek_v3(const Config& config, ConfigJson& json);

}  // namespace switchyard::family_configs
