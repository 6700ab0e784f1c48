#include "launch/program_place.hpp"

#include <filesystem>

namespace switchyard {

namespace fs = std::filesystem;

std::string path_of_program() {
  std::error_code error;
  return fs::read_symlink("/proc/self/exe", error).string();
}

std::string script_of_launch(std::string_view name) {
  std::error_code error;
  fs::path folder = path_of_program();
  while (folder.has_relative_path()) {
    folder = folder.parent_path();
    fs::path script = folder / "launch" / name;
    if (!fs::is_regular_file(script, error)) script = folder / "share/switchyard/launch" / name;
    if (!fs::is_regular_file(script, error)) continue;
    const fs::path from_here = script.lexically_relative(fs::current_path(error));
    const bool is_below = !from_here.empty() && *from_here.begin() != "..";
    return (is_below ? from_here : script).string();
  }
  return {};
}

}  // namespace switchyard
