// Profiles of machines (trainer/pricing/machine_profile.hpp) as YAML files: docs/planning.md has
// the keys. Reading refuses what is wrong with file, line, column, key and what would be right.
#pragma once

#include <string>
#include <string_view>

#include "trainer/pricing/machine_profile.hpp"

namespace switchyard {

// IoError if it cannot be read, ConfigError with all mistakes if it is no profile.
MachineProfile read_profile(const std::string& path);
MachineProfile parse_profile(std::string_view text, const std::string& path);

// Reads back to the same, numbers to six digits.
std::string profile_text(const MachineProfile& profile);

}  // namespace switchyard
