// A law fitted to runs, with what says how far to trust it: whether the runs can bear the law at
// all, intervals by bootstrap over runs, residuals, and the largest budget foretold from the
// others.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "launch/fit/law.hpp"
#include "launch/fit/projection.hpp"

namespace switchyard {

// Why these points cannot determine the law, and which runs would; empty: they can. Few points, few
// values of a variable, or variables that go together (all runs of one budget: N rises as D falls).
std::string why_unbearable(const Law& law, std::span<const FitPoint> points);

struct Interval {  // of the bootstrap
  double standard_error = 0;
  double low = 0;   // 2.5 %
  double high = 0;  // 97.5 %
};

// The runs of the largest compute, foretold by a fit of the others.
struct HeldOut {
  double least_compute = 0;  // of those held out
  std::size_t num_points = 0;
  double mean_error = 0;  // mean of |ln L - ln law|
  double bias = 0;        // mean of ln L - ln law
  std::string problem;    // why it cannot be told; then the rest is 0
};

struct LawFit {
  const Law* law = nullptr;
  LawParameters parameters;
  std::vector<FitPoint> points;
  std::vector<double> residuals;                                    // ln L - ln law, a point each
  std::vector<Interval> coefficient_intervals, exponent_intervals;  // empty without bootstrap
  std::int64_t num_resamples = 0;                                   // that could bear the law
  std::vector<LawParameters> resamples;                             // the law of each of these
  HeldOut held_out;
  std::vector<std::string> warnings;  // an exponent at its bound, a term that nothing asks for

  double root_mean_square() const;  // of the residuals
  double predict(const FitPoint& point) const {
    return value_of(*law, parameters.coefficients, parameters.exponents, point);
  }
};

struct LawFitSettings {
  double delta = 1e-3;
  std::int64_t num_resamples = 200;  // of the bootstrap; 0: none
  std::int64_t seed = 1;             // of its draws
  bool holds_out = true;
};

// DataError with why_unbearable(). The same points give the same bits.
LawFit fit_law(const Law& law, std::vector<FitPoint> points, const LawFitSettings& settings);

}  // namespace switchyard
