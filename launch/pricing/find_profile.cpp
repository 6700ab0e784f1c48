#include "launch/pricing/find_profile.hpp"

#include <fmt/core.h>

#include <cstdlib>
#include <filesystem>

#include "bench/machine.hpp"
#include "launch/home_folder.hpp"
#include "launch/pricing/profile_file.hpp"
#include "tensor/error.hpp"

namespace switchyard {

std::string default_profile_path() {
  const char* const folder = std::getenv("XDG_CONFIG_HOME");
  const std::string config = folder != nullptr && *folder == '/'
                                 ? std::string(folder)
                                 : with_home_folder("~/.config").path;
  return config.empty() ? config : config + "/switchyard/profile.yaml";
}

FoundProfile find_profile(const std::string& wanted) {
  if (wanted == "none") return {{}, "plan.profile is none"};
  if (wanted != "auto") {
    const HomePath path = with_home_folder(wanted);
    if (!path.problem.empty()) throw ConfigError("plan.profile: " + path.problem);
    return {read_profile(path.path), ""};
  }
  const std::string path = default_profile_path();
  std::error_code error;
  if (path.empty() || !std::filesystem::exists(path, error))
    return {{},
            "no profile of this machine is there; `switchyard bench machine` measures one, and "
            "plan.profile or --cluster names another"};
  MachineProfile profile;
  try {
    profile = read_profile(path);
  } catch (const ConfigError& mistakes) {  // nobody asked for it by name
    return {{}, mistakes.what()};
  }
  if (profile.processor != bench::processor_name())
    return {{},
            fmt::format("{} is of another processor ({}); `switchyard bench machine` measures this "
                        "one",
                        path, profile.processor)};
  return {std::move(profile), ""};
}

}  // namespace switchyard
