// Builds a study's file and its CSV (docs/studies.md) from the folders of its points. The files
// appear by rename; one collector at a time: another waits for it.
#pragma once

#include <string>
#include <vector>

#include "launch/study/table.hpp"
#include "launch/sweep/point_state.hpp"
#include "launch/sweep/study_points.hpp"

namespace switchyard {

// The tables of a study's file.
struct StudyTables {
  Table study, points, curves, validation, repeats;
};

// command: what repeats the study. Reads whatever the points have left so far; what is damaged or
// missing is unknown in the tables.
StudyTables tables_of(const Study& study, const std::string& command);

struct CollectedFiles {
  std::string hdf5, csv;
  StudyTables tables;
};
// IoError.
CollectedFiles collect(const Study& study, const std::string& command);

}  // namespace switchyard
