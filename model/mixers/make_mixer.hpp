// The mixer of a layer, of the kind that the configuration asks for.
#pragma once

#include <memory>
#include <string>

#include "model/config.hpp"
#include "model/sequence_mixer.hpp"
#include "parallel/parameter.hpp"

namespace switchyard {

// Registers its parameters under "`layer_name`.attention" or, of a recurrent kind,
// "`layer_name`.mixer".
std::unique_ptr<SequenceMixer> make_mixer(ParameterStore& store, const std::string& layer_name,
                                          const ModelConfig& model, std::int64_t layer,
                                          DType compute);

}  // namespace switchyard
