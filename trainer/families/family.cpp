#include "trainer/families/family.hpp"

#include <fmt/format.h>

#include "tensor/error.hpp"
#include "trainer/families/family_configs.hpp"
#include "trainer/families/family_names.hpp"

namespace switchyard {

namespace {

const std::vector<Family>& all() {
  using namespace family_configs;  // NOLINT
  using namespace family_names;    // NOLINT
  static const std::vector<Family> table = {
      {"llama", "LlamaForCausalLM", read_llama, write_llama,
       joined({attention(), qkv_bias(), output_bias(), dense()}), old_buffers()},
      {"mistral", "MistralForCausalLM", read_mistral, write_mistral, joined({attention(), dense()}),
       old_buffers()},
      {"qwen3", "Qwen3ForCausalLM", read_qwen3, write_qwen3,
       joined({attention(), qkv_bias(), output_bias(), qk_norm(), dense()})},
      {"mixtral", "MixtralForCausalLM", read_mixtral, write_mixtral,
       joined({attention(), mixtral_experts()}), old_buffers()},
      {"olmoe", "OlmoeForCausalLM", read_olmoe, write_olmoe,
       joined({attention(), qk_norm(), experts()})},
      {"qwen2_moe", "Qwen2MoeForCausalLM", read_qwen2_moe, write_qwen2_moe,
       joined({attention(), qkv_bias(), dense(), experts(), shared_expert()})},
      {"qwen3_moe", "Qwen3MoeForCausalLM", read_qwen3_moe, write_qwen3_moe,
       joined({attention(), qkv_bias(), output_bias(), qk_norm(), dense(), experts()})},
      {"gpt_oss", "GptOssForCausalLM", read_gpt_oss, write_gpt_oss,
       joined({attention(), qkv_bias(), output_bias(), sinks(), stacked_experts()})},
      {"deepseek_v2", "DeepseekV2ForCausalLM", read_deepseek_v2, write_deepseek_v2,
       joined({latent_attention(), dense(), experts(), shared_experts()}), next_token_layers()},
      {"deepseek_v3", "DeepseekV3ForCausalLM", read_deepseek_v3, write_deepseek_v3,
       joined({latent_attention(), dense(), experts(), shared_experts(), router_bias()}),
       next_token_layers()},
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
