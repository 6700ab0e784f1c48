#include "launch/fit/frontier.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

namespace switchyard {
namespace {

// A whole number that is alike for values within some percents.
long rounded_log(double value) {
  return std::isnan(value) ? 0 : std::lround(std::log(value) / 0.02);
}

using GroupKey = std::vector<long>;

GroupKey key_of(Tuned tuned, const FitPoint& run) {
  GroupKey key;
  for (const Variable variable : {Variable::size, Variable::tokens, Variable::experts,
                                  Variable::density, Variable::granularity})
    key.push_back(rounded_log(run.value(variable)));
  if (tuned == Tuned::learning_rate) key.push_back(rounded_log(run.batch_tokens));
  return key;
}

double tuned_value(Tuned tuned, const FitPoint& run) {
  return tuned == Tuned::learning_rate ? run.learning_rate : run.batch_tokens;
}

// ln x of the lowest point of the parabola through three points (ln x, loss), the middle one
// lowest.
double lowest_point(const std::array<std::pair<double, double>, 3>& p) {
  const double left = (p[1].second - p[0].second) / (p[1].first - p[0].first);
  const double right = (p[2].second - p[1].second) / (p[2].first - p[1].first);
  const double curvature = (right - left) / (p[2].first - p[0].first);
  if (!(curvature > 0)) return p[1].first;
  return (p[0].first + p[1].first) / 2 - left / (2 * curvature);
}

}  // namespace

Frontier::Frontier(const LawParameters& fit)
    : irreducible_(fit.coefficients[0]), alpha_(fit.exponents[0]), beta_(fit.exponents[1]) {
  const double a = fit.coefficients[1], b = fit.coefficients[2];
  balance_ = std::pow(alpha_ * a / (beta_ * b), 1 / (alpha_ + beta_));
  factor_ = a * std::pow(balance_, -alpha_) + b * std::pow(balance_, beta_);
}

double Frontier::size(double compute) const {
  return balance_ * std::pow(compute / 6, size_exponent());
}

double Frontier::loss(double compute) const {
  return irreducible_ + factor_ * std::pow(compute / 6, -alpha_ * beta_ / (alpha_ + beta_));
}

double Frontier::compute(double loss) const {
  if (!(loss > irreducible_)) return std::numeric_limits<double>::infinity();
  return 6 * std::pow((loss - irreducible_) / factor_, -(alpha_ + beta_) / (alpha_ * beta_));
}

std::vector<FitPoint> leverages(const Frontier& dense, const std::vector<FitPoint>& runs) {
  std::vector<FitPoint> points;
  for (const FitPoint& run : runs) {
    const double compute = dense.compute(run.loss);
    if (run.is_dense() || !std::isfinite(compute)) continue;
    points.push_back(run);
    points.back().loss = compute / run.value(Variable::compute);
  }
  return points;
}

std::vector<FitPoint> best_values(Tuned tuned, const std::vector<FitPoint>& runs,
                                  std::vector<std::string>& notes) {
  std::map<GroupKey, std::map<long, FitPoint>> groups;  // of each value the best run
  for (const FitPoint& run : runs) {
    const double value = tuned_value(tuned, run);
    if (!(value > 0)) continue;
    auto& group = groups[key_of(tuned, run)];
    const auto [place, is_new] = group.emplace(rounded_log(value), run);
    if (!is_new && run.loss < place->second.loss) place->second = run;
  }
  std::vector<FitPoint> best;
  for (const auto& [key, group] : groups) {
    if (group.size() < 3) continue;
    const auto least = std::min_element(
        group.begin(), group.end(),
        [](const auto& a, const auto& b) { return a.second.loss < b.second.loss; });
    if (least == group.begin() || std::next(least) == group.end()) {
      notes.push_back(fmt::format(
          "{}: the {} of the values tried, {:.3g}, is the best: try {} ones", least->second.name,
          least == group.begin() ? "least" : "largest", tuned_value(tuned, least->second),
          least == group.begin() ? "smaller" : "larger"));
      continue;
    }
    std::array<std::pair<double, double>, 3> three;
    auto at = std::prev(least);
    for (auto& [x, loss] : three) {
      x = std::log(tuned_value(tuned, at->second));
      loss = at->second.loss;
      ++at;
    }
    best.push_back(least->second);
    best.back().loss = std::exp(lowest_point(three));
  }
  return best;
}

}  // namespace switchyard
