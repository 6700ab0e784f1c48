// Fits a law by variable projection: for given exponents the coefficients that are best are found
// at once, so the search goes over the exponents alone (Golub and Pereyra 1973). The search is
// NLopt's; it gets the exact gradient, which at the best coefficients is that with the coefficients
// held. What is least:
//     F = sum over runs of  huber(ln L - ln law),   huber(r) = r^2 / 2 to |r| = delta, then linear
// summed and not averaged (averaging made the original fit stop early, arXiv 2404.10102).
#pragma once

#include <span>
#include <vector>

#include "launch/fit/law.hpp"

namespace switchyard {

struct LawParameters {
  std::vector<double> coefficients;  // of the law's terms
  std::vector<double> exponents;
  double objective = 0;  // F
};

struct FitSettings {
  double delta = 1e-3;  // of the Huber loss, in ln L
  // Exponents near which the search begins, instead of the law's own starts: of a fit to much the
  // same points.
  std::vector<double> start = {};
};

// Deterministic. The points must be able to bear the law (launch/fit/law_fit.hpp asks that first);
// their values and losses are positive.
LawParameters fit_parameters(const Law& law, std::span<const FitPoint> points,
                             const FitSettings& settings);

}  // namespace switchyard
