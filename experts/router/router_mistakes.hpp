// What is wrong with the keys of a router, as values that whoever reads the configuration tells.
#pragma once

#include <vector>

#include "experts/config.hpp"
#include "parallel/config_mistake.hpp"

namespace switchyard {

std::vector<ConfigMistake> router_mistakes(const ExpertsConfig& config);
// On a card: kinds that there are no kernels for.
std::vector<ConfigMistake> router_mistakes_on_card(const ExpertsConfig& config);

}  // namespace switchyard
