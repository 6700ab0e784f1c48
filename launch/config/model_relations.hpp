// Relations between keys of the section model (relations.hpp).
#pragma once

#include "launch/config/relation_checker.hpp"

namespace switchyard {

void check_model(RelationChecker& checker, const ModelConfig& model);

}  // namespace switchyard
