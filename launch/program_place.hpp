// Where this program stands, and the scripts of launch/ that were built with it.
#pragma once

#include <string>
#include <string_view>

namespace switchyard {

std::string path_of_program();  // absolute

// launch/NAME of the folders above the program, of the sources or of an installation, as the
// current folder sees it; empty: there is none.
std::string script_of_launch(std::string_view name);

}  // namespace switchyard
