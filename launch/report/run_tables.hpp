// The tables of a report: what was run, how to repeat it, how configurations differ, how the memory
// and the work of parts compare with the plan, what restarts cost, and what is missing.
#pragma once

#include <string>
#include <vector>

#include "launch/report/run_data.hpp"

namespace switchyard::report {

std::string runs_table(const std::vector<RunData>& runs);
// Commands, versions, machines, and the whole configurations, folded away.
std::string repeat_text(const std::vector<RunData>& runs);
// Keys whose values differ between the runs; run.output is not among them.
std::string differences_table(const std::vector<RunData>& runs);
std::string memory_table(const std::vector<RunData>& runs);
// Of a single run: seconds, work and bytes on the wire of each part.
std::string parts_table(const RunData& run);
// What steps took beside what the plan foretold, by part, with a warning where they part by over
// 15 %. Empty if nothing was foretold of any of them.
std::string prediction_table(const std::vector<RunData>& runs);
std::string restarts_table(const std::vector<RunData>& runs);
// Empty if nothing is.
std::string missing_text(const std::vector<RunData>& runs);

}  // namespace switchyard::report
