// What a study's points say together: losses against size, tokens, compute and granularity, with
// the laws fitted to them (launch/fit) and their intervals; the compute-optimal frontier; repeats.
#pragma once

#include <string>

#include "launch/report/study_data.hpp"

namespace switchyard::report {

// Median and spread over seeds of each configuration, beside the noise and the effect asked for.
std::string repeats_section(const StudyData& study);
// Figures and tables of the laws; why there is none, where the points cannot bear one.
std::string laws_section(const StudyData& study);

}  // namespace switchyard::report
