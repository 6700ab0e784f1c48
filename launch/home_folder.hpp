// Paths as shells read them: a `~` at the beginning stands for the home folder. Shells put it in
// for words of their own only: not behind `run.output=` or `--output=`, and not in a file.
#pragma once

#include <string>
#include <string_view>

namespace switchyard {

struct HomePath {
  std::string path;     // with the home folder in place of "~" or "~/"
  std::string problem;  // why there is none; empty: all is well
};

HomePath with_home_folder(std::string_view path);

}  // namespace switchyard
