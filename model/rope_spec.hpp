// Rotary positions as the configuration asks for them.
#pragma once

#include "kernels/rope.hpp"
#include "model/config.hpp"

namespace switchyard {

// ConfigError for an unknown scaling.
kernels::RopeSpec rope_spec(const ModelConfig& model);

}  // namespace switchyard
