// What the file of a study tells (docs/studies.md), as runs that a report can lay over each other,
// one a point. Columns that a file does not have are left empty.
#pragma once

#include <string>
#include <vector>

#include "launch/report/run_data.hpp"
#include "launch/study/table.hpp"

namespace switchyard::report {

struct StudyData {
  std::string path;
  std::string name;
  std::string command;      // what repeats it
  std::string text;         // the study's file
  std::string config_text;  // the configuration that its points begin with
  std::string noise_source;
  double effect = unknown;  // smallest difference asked for
  double noise = unknown;   // of a loss over seeds
  std::vector<RunData> points{};
  std::vector<std::string> sets{};  // of each point
  switchyard::Table table{};        // /points
  switchyard::Table repeats{};      // /repeats
};

// IoError, DataError.
StudyData read_study(const std::string& path);

}  // namespace switchyard::report
