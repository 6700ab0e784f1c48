// The configuration of a run as text, and what reads such texts: launch/ has the one reader of
// configurations and passes it down.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace switchyard {

// Paths of keys, as "model.rope_scaling.factor", and their values as an effective configuration
// writes them; in the order of the document of keys.
using ConfigValues = std::vector<std::pair<std::string, std::string>>;

struct ConfigText {
  std::string yaml;  // the complete configuration, stored in the run and in each checkpoint
  // What such a text sets, of this version of the program or an earlier one. Keys and values that
  // this version does not know are left out.
  ConfigValues (*values_of)(std::string_view yaml) = nullptr;
};

}  // namespace switchyard
