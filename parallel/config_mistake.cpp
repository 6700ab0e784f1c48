#include "parallel/config_mistake.hpp"

#include <fmt/core.h>

#include "tensor/error.hpp"

namespace switchyard {

void require_none(const std::vector<ConfigMistake>& mistakes) {
  if (mistakes.empty()) return;
  std::string lines;
  for (const ConfigMistake& mistake : mistakes)
    lines += fmt::format("{}{}: {}", lines.empty() ? "" : "\n", mistake.keys.front(), mistake.text);
  throw ConfigError(lines);
}

}  // namespace switchyard
