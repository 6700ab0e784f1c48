// What is wrong with a configuration, as a value: who reads the configuration tells it with its
// place, everybody else throws it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace switchyard {

struct ConfigMistake {
  // The key that it is about, as "parallel.expert", then the others that its equation holds: one of
  // them may be the one to change.
  std::vector<std::string_view> keys;
  std::string text;  // what is wrong, what would be right
  bool operator==(const ConfigMistake&) const = default;
};

// ConfigError with a line "KEY: TEXT" for each, unless there are none.
void require_none(const std::vector<ConfigMistake>& mistakes);

}  // namespace switchyard
