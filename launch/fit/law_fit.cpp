#include "launch/fit/law_fit.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "tensor/error.hpp"
#include "tensor/random.hpp"

namespace switchyard {
namespace {

constexpr double same_value = 0.02;       // values this near in ln are one value
constexpr std::size_t least_values = 3;   // of each variable
constexpr double least_own_share = 1e-3;  // of a variable's variance that others do not explain
constexpr double same_budget = 1.25;      // factor between runs of one budget

std::vector<double> logs_of(std::span<const FitPoint> points, Variable variable) {
  std::vector<double> logs;
  for (const FitPoint& point : points) logs.push_back(std::log(point.value(variable)));
  return logs;
}

std::size_t num_values(std::vector<double> logs) {
  std::sort(logs.begin(), logs.end());
  std::size_t count = logs.empty() ? 0 : 1;
  double first = logs.empty() ? 0 : logs.front();
  for (const double value : logs)
    if (value - first > same_value) {
      ++count;
      first = value;
    }
  return count;
}

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

void subtract_mean(std::vector<double>& values) {
  double mean = 0;
  for (const double value : values) mean += value;
  mean /= static_cast<double>(values.size());
  for (double& value : values) value -= mean;
}

// The share of each column's variance that the others leave over: Gram and Schmidt with that column
// last.
std::vector<double> own_shares(std::vector<std::vector<double>> columns) {
  for (auto& column : columns) subtract_mean(column);
  std::vector<double> shares;
  for (std::size_t last = 0; last < columns.size(); ++last) {
    std::vector<std::vector<double>> basis;
    const auto reduce = [&](std::vector<double> column) {
      for (const auto& other : basis) {
        const double factor = dot(column, other) / dot(other, other);
        for (std::size_t i = 0; i < column.size(); ++i) column[i] -= factor * other[i];
      }
      return column;
    };
    for (std::size_t k = 0; k < columns.size(); ++k) {
      if (k == last) continue;
      std::vector<double> rest = reduce(columns[k]);
      if (dot(rest, rest) > 1e-12 * dot(columns[k], columns[k])) basis.push_back(std::move(rest));
    }
    const std::vector<double> rest = reduce(columns[last]);
    shares.push_back(dot(rest, rest) / std::max(dot(columns[last], columns[last]), 1e-300));
  }
  return shares;
}

std::string range_text(std::span<const FitPoint> points, Variable variable) {
  double least = points.front().value(variable), most = least;
  for (const FitPoint& point : points) {
    least = std::min(least, point.value(variable));
    most = std::max(most, point.value(variable));
  }
  return fmt::format("{:.3g} to {:.3g}", least, most);
}

// Two variables of which each follows from the other.
std::string tied_text(const Law& law, std::span<const FitPoint> points,
                      const std::vector<double>& shares) {
  const auto worst = std::min_element(shares.begin(), shares.end()) - shares.begin();
  const Variable variable = law.variables[static_cast<std::size_t>(worst)];
  std::vector<double> size = logs_of(points, Variable::size);
  std::vector<double> tokens = logs_of(points, Variable::tokens);
  const bool has_both =
      std::count(law.variables.begin(), law.variables.end(), Variable::size) > 0 &&
      std::count(law.variables.begin(), law.variables.end(), Variable::tokens) > 0;
  if (has_both && own_shares({size, tokens})[0] < least_own_share) {
    subtract_mean(size);
    subtract_mean(tokens);
    return dot(size, tokens) < 0
               ? fmt::format(
                     "all runs are of one budget (C = {} FLOPs): D falls as N rises, and "
                     "their effects cannot be told apart; add runs of other budgets",
                     range_text(points, Variable::compute))
               : "D is N times a constant in all runs, and their effects cannot be told apart; add "
                 "runs with other ratios of D and N";
  }
  return fmt::format(
      "{} follows from the other variables in these runs, and its effect cannot be told apart; "
      "change it alone in some runs",
      symbol_of(variable));
}

double mean_of(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return values.empty() ? 0 : sum / static_cast<double>(values.size());
}

Interval interval_of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const double mean = mean_of(values);
  double squares = 0;
  for (const double value : values) squares += (value - mean) * (value - mean);
  const auto at = [&](double share) {
    return values[static_cast<std::size_t>(
        std::lround(share * static_cast<double>(values.size() - 1)))];
  };
  return {.standard_error = std::sqrt(squares / static_cast<double>(values.size() - 1)),
          .low = at(0.025),
          .high = at(0.975)};
}

std::vector<FitPoint> resample(const std::vector<FitPoint>& points, RandomKey key,
                               std::int64_t number) {
  std::vector<FitPoint> drawn;
  for (std::size_t i = 0; i < points.size(); ++i) {
    const auto words = random_words(key, i, static_cast<std::uint64_t>(number));
    const std::uint64_t scaled = std::uint64_t{words[0]} * points.size();  // of 2^32
    drawn.push_back(points[scaled >> 32]);
  }
  return drawn;
}

void bootstrap(LawFit& fit, const LawFitSettings& settings) {
  const std::size_t num_terms = fit.law->terms.size(), num_exponents = fit.law->exponents.size();
  std::vector<std::vector<double>> coefficients(num_terms), exponents(num_exponents);
  const RandomKey key =
      random_key(static_cast<std::uint64_t>(settings.seed), "bootstrap over runs");
  for (std::int64_t number = 0; number < settings.num_resamples; ++number) {
    const std::vector<FitPoint> drawn = resample(fit.points, key, number);
    if (!why_unbearable(*fit.law, drawn).empty()) continue;
    const LawParameters found = fit_parameters(
        *fit.law, drawn, {.delta = settings.delta, .start = fit.parameters.exponents});
    for (std::size_t j = 0; j < num_terms; ++j) coefficients[j].push_back(found.coefficients[j]);
    for (std::size_t k = 0; k < num_exponents; ++k) exponents[k].push_back(found.exponents[k]);
    fit.resamples.push_back(found);
    ++fit.num_resamples;
  }
  if (fit.num_resamples < 20) {
    fit.warnings.push_back(fmt::format(
        "no intervals: only {} of {} resamples of the runs could bear the law; add runs",
        fit.num_resamples, settings.num_resamples));
    return;
  }
  for (auto& values : coefficients) fit.coefficient_intervals.push_back(interval_of(values));
  for (auto& values : exponents) fit.exponent_intervals.push_back(interval_of(values));
}

HeldOut hold_out(const LawFit& fit, double delta) {
  double largest = 0;
  for (const FitPoint& point : fit.points)
    largest = std::max(largest, point.value(Variable::compute));
  std::vector<FitPoint> kept, held;
  for (const FitPoint& point : fit.points)
    (point.value(Variable::compute) * same_budget >= largest ? held : kept).push_back(point);
  HeldOut result;
  result.num_points = held.size();
  result.least_compute = largest / same_budget;
  result.problem = why_unbearable(*fit.law, kept);
  if (!result.problem.empty()) return result;
  const LawParameters found =
      fit_parameters(*fit.law, kept, {.delta = delta, .start = fit.parameters.exponents});
  for (const FitPoint& point : held) {
    const double error =
        std::log(point.loss / value_of(*fit.law, found.coefficients, found.exponents, point));
    result.mean_error += std::abs(error) / static_cast<double>(held.size());
    result.bias += error / static_cast<double>(held.size());
  }
  return result;
}

void add_warnings(LawFit& fit) {
  for (std::size_t k = 0; k < fit.law->exponents.size(); ++k) {
    const Exponent& exponent = fit.law->exponents[k];
    const double value = fit.parameters.exponents[k];
    const double margin = 1e-6 * (exponent.most - exponent.least);
    if (value - exponent.least < margin || exponent.most - value < margin)
      fit.warnings.push_back(
          fmt::format("{} lies at the end of its range ({} to {}): the runs do not determine it",
                      exponent.name, exponent.least, exponent.most));
  }
  for (std::size_t j = 0; j < fit.law->terms.size(); ++j) {
    double largest = 0;
    std::vector<double> alone(fit.law->terms.size(), 0.0);
    alone[j] = fit.parameters.coefficients[j];
    for (const FitPoint& point : fit.points)
      largest = std::max(
          largest, value_of(*fit.law, alone, fit.parameters.exponents, point) / fit.predict(point));
    if (largest < 1e-6)
      fit.warnings.push_back(
          fmt::format("the term with {} is nothing at every run: they do not ask "
                      "for it, and its exponents mean nothing",
                      fit.law->terms[j].coefficient));
  }
}

}  // namespace

std::string why_unbearable(const Law& law, std::span<const FitPoint> points) {
  const std::size_t least_points = law.num_parameters() + 2;
  if (points.size() < least_points)
    return fmt::format("{} runs, and {} coefficients and exponents need at least {}", points.size(),
                       law.num_parameters(), least_points);
  std::vector<std::vector<double>> columns;
  for (const Variable variable : law.variables) {
    columns.push_back(logs_of(points, variable));
    const std::size_t count = num_values(columns.back());
    if (count < least_values)
      return fmt::format("the runs have {} {} of {} ({}), and at least {} are needed", count,
                         count == 1 ? "value" : "values", symbol_of(variable),
                         range_text(points, variable), least_values);
  }
  const bool leaves_tokens_out =
      std::count(law.variables.begin(), law.variables.end(), Variable::size) > 0 &&
      std::count(law.variables.begin(), law.variables.end(), Variable::tokens) == 0;
  if (leaves_tokens_out && num_values(logs_of(points, Variable::tokens)) > 1)
    return fmt::format("it is a law of runs of one D, and D is {}",
                       range_text(points, Variable::tokens));
  const std::vector<double> shares = own_shares(columns);
  for (const double share : shares)
    if (share < least_own_share) return tied_text(law, points, shares);
  return {};
}

double LawFit::root_mean_square() const {
  return std::sqrt(dot(residuals, residuals) / static_cast<double>(residuals.size()));
}

LawFit fit_law(const Law& law, std::vector<FitPoint> points, const LawFitSettings& settings) {
  if (const std::string problem = why_unbearable(law, points); !problem.empty())
    throw DataError(fmt::format("{}: {}", law.name, problem));
  LawFit fit;
  fit.law = &law;
  fit.points = std::move(points);
  fit.parameters = fit_parameters(law, fit.points, {.delta = settings.delta});
  for (const FitPoint& point : fit.points)
    fit.residuals.push_back(std::log(point.loss / fit.predict(point)));
  add_warnings(fit);
  if (settings.num_resamples > 0) bootstrap(fit, settings);
  if (settings.holds_out) fit.held_out = hold_out(fit, settings.delta);
  return fit;
}

}  // namespace switchyard
