// The page of `switchyard report`: one HTML file that needs nothing else.
#pragma once

#include <string>
#include <vector>

#include "launch/report/run_data.hpp"
#include "launch/report/study_data.hpp"

namespace switchyard::report {

// command: what made the page, as a shell reads it.
std::string runs_page(const std::vector<RunData>& runs, const std::string& command);
std::string study_page(const StudyData& study, const std::string& command);

}  // namespace switchyard::report
