// Columns that stay aligned whatever stands in them.
#pragma once

#include <string>
#include <vector>

namespace switchyard {

// A line for each row, indented by two spaces: the first column to the left, the others to the
// right, each as wide as its widest cell, two spaces between. Rows may be of different lengths.
std::string table_text(const std::vector<std::vector<std::string>>& rows);

}  // namespace switchyard
