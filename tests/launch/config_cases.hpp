// A valid configuration and what the tests ask of an invalid one.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

#include "launch/config/config_file.hpp"
#include "tensor/error.hpp"

namespace switchyard {

// Line numbers matter: run 1-2, data 3-4, then what a test appends from line 5 on.
inline constexpr std::string_view smallest =
    "run:\n"
    "  output: runs/a\n"
    "data:\n"
    "  path: a.h5\n";

// The message of the ConfigError, or "" if the text loads.
inline std::string mistakes_of(std::string_view text,
                               const std::vector<std::string>& overrides = {}) {
  try {
    load_config(text, "a.yaml", overrides);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

inline std::string mistakes_after(std::string_view appended,
                                  const std::vector<std::string>& overrides = {}) {
  return mistakes_of(std::string(smallest) + std::string(appended), overrides);
}

}  // namespace switchyard
