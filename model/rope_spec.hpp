// Rotary positions as the configuration asks for them.
#pragma once

#include "kernels/rows/rope.hpp"
#include "model/config.hpp"

namespace switchyard {

kernels::RopeSpec rope_spec(const ModelConfig& model);

// What scores of queries and keys are multiplied by: 1 / sqrt(head_dim), and more where YaRN is
// DeepSeek's (model/config.hpp).
float attention_scale(const ModelConfig& model);

}  // namespace switchyard
