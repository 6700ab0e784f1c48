// The document of all configuration keys, written from the schema.
#pragma once

#include <string>

namespace switchyard {

// docs/configuration.md, as `switchyard config --document` prints it.
std::string configuration_document();

}  // namespace switchyard
