// The families of published models that come in and go out: how config.json says what a model is,
// and what its tensors are called. One table of names a family is read in both directions.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "trainer/config.hpp"
#include "trainer/families/config_json.hpp"

namespace switchyard {

// Which part of our tensor a published tensor is.
enum class TensorPart : std::uint8_t {
  whole,
  flat,   // whole, with one dim there
  query,  // rows of attention.qkv
  key,
  value,
  gate,  // rows of a SwiGLU's gate_up
  up,
  latent_query,  // pairs that turn are neighbours there
  latent_key,
  // Of a tensor of all experts, rows and columns of each exchanged; rows of gate and up in turn.
  stacked,
  stacked_gate_up,
  stacked_gate_up_bias,  // a row of numbers an expert
};

// Names with {l} for the layer's number and {e} for the expert's.
struct NameRule {
  std::string_view ours;
  std::string_view theirs;
  TensorPart part = TensorPart::whole;
};

struct Family {
  std::string_view name;          // model_type
  std::string_view architecture;  // of transformers
  // From config.json to the keys model and experts; DataError for what is not computed here.
  void (*read)(const ConfigJson& json, Config& config);
  // And back; what the family cannot say is found by reading it again (unsayable_keys).
  void (*write)(const Config& config, ConfigJson& json);
  std::vector<NameRule> names;
  // Names that are skipped, each with the reason; `*` for anything, {n} for the number of layers.
  struct Skipped {
    std::string_view pattern;
    std::string_view reason;
  };
  std::vector<Skipped> skipped = {};
};

std::span<const Family> families();
// DataError with the legal names if there is none.
const Family& family_of(std::string_view name);

// Keys of the configuration whose model `b` differs from that of `a`: what a token's logits
// depend on.
std::vector<std::string> differing_keys(const Config& a, const Config& b);
// config.json of the model; empty, and `unsayable` has the keys, if the family cannot say it.
ConfigJson write_config(const Family& family, const Config& config,
                        std::vector<std::string>& unsayable);

}  // namespace switchyard
