// The folder of a study, and who works in it. study.json says whose it is: another study, or
// somebody's files, are refused before anything is written.
#pragma once

#include "data/files/file_lock.hpp"
#include "launch/sweep/study_points.hpp"

namespace switchyard {

// Makes the folder if need be. ConfigError if it is another study's or nobody knows whose.
void claim_study_folder(const StudyConfig& study);

// Held while this machine runs points of the study. ConfigError if another sweep here does.
FileLock hold_study_on_this_host(const StudyConfig& study);

}  // namespace switchyard
