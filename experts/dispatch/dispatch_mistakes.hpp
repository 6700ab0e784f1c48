// What is wrong with the keys of dispatch, as values that whoever reads the configuration tells.
#pragma once

#include <vector>

#include "experts/config.hpp"
#include "parallel/config_mistake.hpp"

namespace switchyard {

std::vector<ConfigMistake> dispatch_mistakes(const ExpertsConfig& config);
// On a card: ways that nobody has run there.
std::vector<ConfigMistake> dispatch_mistakes_on_card(const ExpertsConfig& config);

}  // namespace switchyard
