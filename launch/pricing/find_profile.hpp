// Which profile a plan or a run goes by (plan.profile).
#pragma once

#include <optional>
#include <string>

#include "trainer/pricing/machine_profile.hpp"

namespace switchyard {

// Where `switchyard bench machine` writes and plan.profile: auto looks: $XDG_CONFIG_HOME or
// ~/.config, then switchyard/profile.yaml. Empty: there is no home folder.
std::string default_profile_path();

struct FoundProfile {
  std::optional<MachineProfile> profile;
  std::string why_not;  // why there is none, and how to get one
};

// wanted: "auto", "none", or a file, which must be a profile (IoError, ConfigError). `auto` takes
// only a profile of this machine's kind of processor.
FoundProfile find_profile(const std::string& wanted);

}  // namespace switchyard
