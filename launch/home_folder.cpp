#include "launch/home_folder.hpp"

#include <fmt/core.h>

#include <cstdlib>

namespace switchyard {

HomePath with_home_folder(std::string_view path) {
  if (!path.starts_with('~')) return {std::string(path), ""};
  const std::string_view first = path.substr(0, path.find('/'));
  if (first != "~")
    return {"",
            fmt::format("{} is not known here as the home of a user; write the folder out, or ./"
                        "{} if it is called so",
                        first, path)};
  const char* home = std::getenv("HOME");
  if (home == nullptr || *home != '/')
    return {"", "~ stands for the home folder, and HOME names none; write the folder out"};
  return {std::string(home) + std::string(path.substr(1)), ""};
}

}  // namespace switchyard
