// Rotary positions as the configuration asks for them.
#pragma once

#include "kernels/rope.hpp"
#include "model/config.hpp"

namespace switchyard {

kernels::RopeSpec rope_spec(const ModelConfig& model);

}  // namespace switchyard
