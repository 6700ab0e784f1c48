// The figures of a report that show what happened in runs, step by step. Each is a `figure` element
// with an id of its own; what no run recorded is said in its place.
#pragma once

#include <string>
#include <vector>

#include "launch/report/run_data.hpp"

namespace switchyard::report {

// The colour of each run's curves and what the key calls it.
struct Palette {
  struct Entry {
    std::size_t color = 0;
    std::string name;  // empty: the key has it already, or has no room
  };
  std::vector<Entry> entries;  // of each run
  std::string note;            // what the colours mean, where the key cannot tell
};
// By run, or by `groups` (the group of each run) where there are any.
Palette palette_of(const std::vector<RunData>& runs, const std::vector<std::string>& groups);

// Loss by step, tokens, FLOPs and seconds; tokens a second; gradient norm and learning rate.
std::string curve_figures(const std::vector<RunData>& runs, const Palette& palette);
// Where the time of a step goes.
std::string part_figures(const std::vector<RunData>& runs);
// Memory beside the plan's.
std::string memory_figures(const std::vector<RunData>& runs);
// Load of the experts, and what is dropped.
std::string load_figures(const std::vector<RunData>& runs, const Palette& palette);
// Bandwidth of exchanges by size, of traced steps.
std::string exchange_figures(const std::vector<RunData>& runs, const Palette& palette);
// Tokens a second by ranks, of runs that differ in nothing else but their layout.
std::string scaling_figures(const std::vector<RunData>& runs);

}  // namespace switchyard::report
