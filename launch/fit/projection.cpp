#include "launch/fit/projection.hpp"

#include <nlopt.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>

#include "tensor/error.hpp"

namespace switchyard {
namespace {

// Solves a x = b for a symmetric positive definite a (row-major), which it overwrites; false if it
// is not.
bool solve_cholesky(std::vector<double>& a, std::vector<double>& b) {
  const std::size_t n = b.size();
  for (std::size_t j = 0; j < n; ++j) {
    for (std::size_t k = 0; k < j; ++k) a[j * n + j] -= a[j * n + k] * a[j * n + k];
    if (!(a[j * n + j] > 0)) return false;
    a[j * n + j] = std::sqrt(a[j * n + j]);
    for (std::size_t i = j + 1; i < n; ++i) {
      for (std::size_t k = 0; k < j; ++k) a[i * n + j] -= a[i * n + k] * a[j * n + k];
      a[i * n + j] /= a[j * n + j];
    }
  }
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t k = 0; k < i; ++k) b[i] -= a[i * n + k] * b[k];
    b[i] /= a[i * n + i];
  }
  for (std::size_t i = n; i-- > 0;) {
    for (std::size_t k = i + 1; k < n; ++k) b[i] -= a[k * n + i] * b[k];
    b[i] /= a[i * n + i];
  }
  return true;
}

// The objective as a function of the exponents alone.
class Projection {
 public:
  Projection(const Law& law, std::span<const FitPoint> points, double delta);

  // F at the best coefficients for these exponents. gradient: null, or room for one number an
  // exponent. Begins with the coefficients of the last call.
  double evaluate(const double* exponents, double* gradient);
  std::vector<double> coefficients(std::span<const double> exponents) const;
  void forget_coefficients();

 private:
  void set_exponents(const double* exponents);
  double huber(double residual) const {
    const double size = std::abs(residual);
    return size <= delta_ ? 0.5 * size * size : delta_ * (size - 0.5 * delta_);
  }
  void solve();
  void set_equations(double mu, double damping, std::vector<double>& matrix,
                     std::vector<double>& step) const;
  double residuals(const std::vector<double>& coefficients);

  std::size_t num_points_, num_terms_, num_exponents_;
  double delta_;
  std::vector<double> log_loss_;
  // [term][feature of it]: its exponent, its values over the points, less their mean
  struct Column {
    std::size_t exponent;
    double mean;
    std::vector<double> values;
  };
  std::vector<std::vector<Column>> columns_;
  std::vector<double> powers_;     // [term][point]: exp(sum of theta f)
  std::vector<double> scaled_;     // coefficients of the terms with their mean features taken out
  std::vector<double> slopes_;     // [term][point]: of ln law by the coefficient
  std::vector<double> residuals_;  // ln L - ln law
};

Projection::Projection(const Law& law, std::span<const FitPoint> points, double delta)
    : num_points_(points.size()),
      num_terms_(law.terms.size()),
      num_exponents_(law.exponents.size()),
      delta_(delta),
      powers_(num_terms_ * num_points_),
      slopes_(num_terms_ * num_points_),
      residuals_(num_points_) {
  for (const FitPoint& point : points) log_loss_.push_back(std::log(point.loss));
  for (const Term& term : law.terms) {
    std::vector<Column>& columns = columns_.emplace_back();
    for (const Feature& feature : term.features) {
      Column column{feature.exponent, 0, {}};
      for (const FitPoint& point : points) column.values.push_back(feature_value(feature, point));
      for (const double value : column.values) column.mean += value;
      column.mean /= static_cast<double>(num_points_);
      for (double& value : column.values) value -= column.mean;
      columns.push_back(std::move(column));
    }
  }
  forget_coefficients();
}

// Every term gets an equal share of the mean loss.
void Projection::forget_coefficients() {
  double mean = 0;
  for (const double value : log_loss_) mean += value;
  mean /= static_cast<double>(num_points_);
  scaled_.assign(num_terms_, std::exp(mean) / static_cast<double>(num_terms_));
}

void Projection::set_exponents(const double* exponents) {
  for (std::size_t j = 0; j < num_terms_; ++j) {
    double* powers = powers_.data() + j * num_points_;
    std::fill(powers, powers + num_points_, 0.0);
    for (const Column& column : columns_[j]) {
      const double theta = exponents[column.exponent];
      for (std::size_t i = 0; i < num_points_; ++i) powers[i] += theta * column.values[i];
    }
    for (std::size_t i = 0; i < num_points_; ++i) powers[i] = std::exp(powers[i]);
  }
}

// Fills residuals_ and slopes_ for these coefficients; returns F. Infinite if the law is 0
// somewhere.
double Projection::residuals(const std::vector<double>& coefficients) {
  double sum = 0;
  for (std::size_t i = 0; i < num_points_; ++i) {
    double law = 0;
    for (std::size_t j = 0; j < num_terms_; ++j)
      law += coefficients[j] * powers_[j * num_points_ + i];
    for (std::size_t j = 0; j < num_terms_; ++j)
      slopes_[j * num_points_ + i] = powers_[j * num_points_ + i] / law;
    residuals_[i] = log_loss_[i] - std::log(law);
    sum += huber(residuals_[i]);
  }
  return std::isfinite(sum) ? sum : std::numeric_limits<double>::infinity();
}

// The best coefficients of at least 0, by projected steps: a coefficient at 0 that would fall is
// held there. Steps are between those of reweighted least squares (mu = 1: safe) and Newton's
// (mu = 0: residuals in the linear part have no curvature).
void Projection::solve() {
  const std::size_t n = num_terms_;
  double objective = residuals(scaled_);
  double mu = 1, damping = 1e-9;
  std::vector<double> matrix(n * n), step(n), tried(n);
  for (int iteration = 0; iteration < 200; ++iteration) {
    set_equations(mu, damping, matrix, step);
    double longest = 0;
    if (solve_cholesky(matrix, step)) {
      for (std::size_t j = 0; j < n; ++j) {
        tried[j] = std::max(0.0, scaled_[j] + step[j]);
        longest = std::max(longest, std::abs(tried[j] - scaled_[j]) / (scaled_[j] + 1e-30));
      }
      const double found = residuals(tried);
      if (found < objective) {
        const double gain = objective - found;
        objective = found;
        scaled_ = tried;
        mu *= 0.3;
        damping = std::max(damping * 0.1, 1e-12);
        if (gain < 1e-13 * objective && longest < 1e-9) return;
        continue;
      }
    }
    // Nothing better that way: more caution, until a step is too short to matter.
    if (longest < 1e-10 && mu >= 1) break;
    mu = std::min(1.0, mu * 8 + 1e-3);
    damping = std::min(damping * 10, 1e3);
    residuals(scaled_);
  }
  residuals(scaled_);
}

// matrix x = step for one step of solve().
void Projection::set_equations(double mu, double damping, std::vector<double>& matrix,
                               std::vector<double>& step) const {
  const std::size_t n = num_terms_;
  std::fill(matrix.begin(), matrix.end(), 0.0);
  std::fill(step.begin(), step.end(), 0.0);
  for (std::size_t i = 0; i < num_points_; ++i) {
    const double size = std::abs(residuals_[i]);
    const double pull = std::clamp(residuals_[i], -delta_, delta_);
    const double weight = size > delta_ ? mu * delta_ / size : 1.0;
    for (std::size_t j = 0; j < n; ++j) {
      const double slope = slopes_[j * num_points_ + i];
      step[j] += pull * slope;
      for (std::size_t k = 0; k <= j; ++k)
        matrix[j * n + k] += weight * slope * slopes_[k * num_points_ + i];
    }
  }
  for (std::size_t j = 0; j < n; ++j) {
    matrix[j * n + j] *= 1 + damping;
    matrix[j * n + j] += 1e-300;
    for (std::size_t k = 0; k < j; ++k) matrix[k * n + j] = matrix[j * n + k];
  }
  for (std::size_t j = 0; j < n; ++j) {
    if (scaled_[j] > 0 || step[j] > 0) continue;
    for (std::size_t k = 0; k < n; ++k) matrix[j * n + k] = matrix[k * n + j] = 0;
    matrix[j * n + j] = 1;
    step[j] = 0;
  }
}

double Projection::evaluate(const double* exponents, double* gradient) {
  set_exponents(exponents);
  solve();
  double sum = 0;
  if (gradient != nullptr) std::fill(gradient, gradient + num_exponents_, 0.0);
  for (std::size_t i = 0; i < num_points_; ++i) {
    sum += huber(residuals_[i]);
    if (gradient == nullptr) continue;
    const double pull = std::clamp(residuals_[i], -delta_, delta_);
    for (std::size_t j = 0; j < num_terms_; ++j) {
      const double share = scaled_[j] * slopes_[j * num_points_ + i];
      for (const Column& column : columns_[j])
        gradient[column.exponent] -= pull * share * column.values[i];
    }
  }
  return sum;
}

std::vector<double> Projection::coefficients(std::span<const double> exponents) const {
  std::vector<double> values;
  for (std::size_t j = 0; j < num_terms_; ++j) {
    double log = 0;
    for (const Column& column : columns_[j]) log -= exponents[column.exponent] * column.mean;
    values.push_back(scaled_[j] * std::exp(log));
  }
  return values;
}

struct Search {
  Projection* projection;
  double scale;  // NLopt's tolerances are relative to numbers near 1
};

double objective_of(unsigned num_exponents, const double* exponents, double* gradient, void* data) {
  const Search& search = *static_cast<Search*>(data);
  const double value = search.projection->evaluate(exponents, gradient) * search.scale;
  if (gradient != nullptr)
    for (unsigned k = 0; k < num_exponents; ++k) gradient[k] *= search.scale;
  return value;
}

struct DestroySearch {
  void operator()(nlopt_opt search) const { nlopt_destroy(search); }
};

// One search by one of NLopt's ways. It may stop for want of progress in the last bits: what it has
// found by then counts.
double minimise(nlopt_algorithm algorithm, const Law& law, Search& search,
                std::vector<double>& exponents, double first_step, int most_evaluations) {
  const auto num_exponents = static_cast<unsigned>(exponents.size());
  const std::unique_ptr<nlopt_opt_s, DestroySearch> way(nlopt_create(algorithm, num_exponents));
  expect(way != nullptr, "memory for NLopt");
  std::vector<double> least, most;
  for (std::size_t k = 0; k < exponents.size(); ++k) {
    least.push_back(law.exponents[k].least);
    most.push_back(law.exponents[k].most);
    exponents[k] = std::clamp(exponents[k], least[k], most[k]);
  }
  nlopt_set_lower_bounds(way.get(), least.data());
  nlopt_set_upper_bounds(way.get(), most.data());
  nlopt_set_min_objective(way.get(), objective_of, &search);
  nlopt_set_xtol_rel(way.get(), 1e-9);
  nlopt_set_ftol_rel(way.get(), 1e-13);
  nlopt_set_maxeval(way.get(), most_evaluations);
  if (first_step > 0) nlopt_set_initial_step1(way.get(), first_step);
  const std::vector<double> start = exponents;
  double value = std::numeric_limits<double>::infinity();
  if (nlopt_optimize(way.get(), exponents.data(), &value) == NLOPT_FAILURE &&
      !(value < std::numeric_limits<double>::infinity())) {
    exponents = start;
    value = objective_of(num_exponents, exponents.data(), nullptr, &search);
  }
  return value;
}

// Every combination of the exponents' starts.
std::vector<std::vector<double>> starts_of(const Law& law) {
  std::vector<std::vector<double>> starts = {{}};
  for (const Exponent& exponent : law.exponents) {
    std::vector<std::vector<double>> longer;
    for (const std::vector<double>& start : starts)
      for (const double value : exponent.starts) {
        longer.push_back(start);
        longer.back().push_back(value);
      }
    starts = std::move(longer);
  }
  return starts;
}

}  // namespace

LawParameters fit_parameters(const Law& law, std::span<const FitPoint> points,
                             const FitSettings& settings) {
  expect(!points.empty() && settings.delta > 0, "points and a delta above 0");
  Projection projection(law, points, settings.delta);
  Search search{&projection,
                1 / (settings.delta * settings.delta * static_cast<double>(points.size()))};
  std::vector<std::pair<double, std::vector<double>>> found;
  if (!settings.start.empty()) {
    found.emplace_back(0, settings.start);
  } else {
    for (const std::vector<double>& start : starts_of(law)) {
      projection.forget_coefficients();
      found.emplace_back(projection.evaluate(start.data(), nullptr), start);
    }
    std::stable_sort(found.begin(), found.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    found.resize(std::min<std::size_t>(found.size(), 3));
  }
  double least = std::numeric_limits<double>::infinity();
  std::vector<double> exponents;
  for (auto& [value, start] : found) {
    projection.forget_coefficients();
    value = minimise(NLOPT_LD_LBFGS, law, search, start, 0, 300);
    if (value < least || exponents.empty()) {
      least = value;
      exponents = start;
    }
  }
  // Few residuals lie in the quadratic part: where many of the others change sides, the gradient
  // alone comes to rest too early.
  projection.forget_coefficients();
  least = minimise(NLOPT_LN_SBPLX, law, search, exponents, 0.01, 2000);
  LawParameters result;
  result.objective = projection.evaluate(exponents.data(), nullptr);
  result.exponents = exponents;
  result.coefficients = projection.coefficients(exponents);
  return result;
}

}  // namespace switchyard
