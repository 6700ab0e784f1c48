// Whether a study can see what it asks for: the noise of a loss over seeds against the effect.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "launch/sweep/study_config.hpp"

namespace switchyard {

// Of repeats of one configuration; NaN where there are too few.
struct Spread {
  double median = 0, least = 0, largest = 0;
  double standard_deviation = 0;  // from 2 repeats on
};
Spread spread_of(std::vector<double> values);

struct Noise {
  double value = 0;    // standard deviation of a loss over seeds
  std::string source;  // "given", "assumed" or the path of the earlier study
};
// DataError if the earlier study has no repeats.
Noise noise_for(const StudyConfig& study);

// The least difference between the means of two configurations that so many repeats of each show,
// two-sided at 5 %, with a chance of 80 %: (1.960 + 0.842) noise sqrt(2 / repeats).
double least_visible_effect(double noise, std::int64_t num_repeats);
std::int64_t repeats_needed(double noise, double effect);

// The check in words, a line; empty if no effect is asked for.
std::string power_text(const StudyConfig& study);

}  // namespace switchyard
