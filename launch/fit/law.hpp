// Scaling laws as data. Every law here is a sum of terms, each a coefficient times powers:
//     L = sum over terms j of  c_j exp(sum over exponents k of  theta_k f_jk(point)),   c_j >= 0,
// with f a signed product of logarithms of a run's facts (ln N, ln N ln E, ...). For fixed
// exponents it is linear in the coefficients: so one way of fitting (launch/fit/projection.hpp)
// serves all. docs/scaling_laws.md has the formulas with their sources.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace switchyard {

// What laws are functions of. All are positive; a fact that nobody knows is NaN.
enum class Variable : std::uint8_t {
  size,         // N: parameters
  tokens,       // D: tokens trained on
  compute,      // C: FLOPs of the run
  experts,      // E: experts of a layer, 1 if dense
  density,      // 1 - S: active parameters over all
  granularity,  // G: width of the dense feed-forward over that of an expert
};
inline constexpr std::size_t num_variables = 6;
std::string_view symbol_of(Variable variable);  // "N", "D", ...

// One finished run, as laws see it.
struct FitPoint {
  std::string name;
  std::array<double, num_variables> values{};
  double loss = 0;  // nats a token; or what else a law is of
  double learning_rate = 0;
  double batch_tokens = 0;  // tokens of a step
  double active_share = 0;  // top_k / experts

  double value(Variable variable) const { return values[static_cast<std::size_t>(variable)]; }
  double& value(Variable variable) { return values[static_cast<std::size_t>(variable)]; }
  bool is_dense() const { return value(Variable::experts) == 1; }
};

struct Exponent {
  std::string_view name;
  double least;  // bounds of the search, and
  double most;
  std::vector<double> starts;  // where it begins
};

struct Feature {
  std::size_t exponent;  // of the law's list
  double sign;
  std::vector<Variable> logs;  // their product
};

struct Term {
  std::string_view coefficient;  // "A"
  std::vector<Feature> features;
};

struct Law {
  std::string_view name;  // of the option
  std::string_view formula;
  std::string_view source;
  std::vector<Variable> variables;  // whose effects it must be able to tell apart
  std::vector<Exponent> exponents;
  std::vector<Term> terms;

  std::size_t num_parameters() const { return terms.size() + exponents.size(); }
};

const Law& size_and_tokens_law();         // L(N, D)
const Law& leverage_law();                // of the efficiency leverage, in place of a loss
const Law& size_power_law();              // of the best learning rate by size and tokens
const Law& tokens_power_law();            // of the best batch by tokens
std::span<const Law* const> loss_laws();  // all laws of the loss

// The law's value at a point, given its coefficients and exponents.
double value_of(const Law& law, std::span<const double> coefficients,
                std::span<const double> exponents, const FitPoint& point);
double feature_value(const Feature& feature, const FitPoint& point);

}  // namespace switchyard
