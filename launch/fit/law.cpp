#include "launch/fit/law.hpp"

#include <cmath>

namespace switchyard {
namespace {

using enum Variable;

// Falls with a variable: exp(-theta ln v).
Feature falls_with(std::size_t exponent, Variable variable) {
  return {exponent, -1, {variable}};
}
Feature grows_with(std::size_t exponent, std::vector<Variable> variables) {
  return {exponent, 1, std::move(variables)};
}

Exponent decay(std::string_view name) {
  return {name, 0.01, 2.0, {0.2, 0.4, 0.7}};
}
// Of either sign, and none to begin with.
Exponent bend(std::string_view name) {
  return {name, -2.0, 2.0, {0.0}};
}

}  // namespace

std::string_view symbol_of(Variable variable) {
  constexpr std::array<std::string_view, num_variables> symbols = {"N", "D",     "C",
                                                                   "E", "1 - S", "G"};
  return symbols[static_cast<std::size_t>(variable)];
}

const Law& size_and_tokens_law() {
  static const Law law = {
      .name = "tokens",
      .formula = "L = E + A / N^alpha + B / D^beta",
      .source =
          "Hoffmann et al. 2022, arXiv 2203.15556, approach 3; fit as Besiroglu et al. 2024, "
          "arXiv 2404.10102",
      .variables = {size, tokens},
      .exponents = {decay("alpha"), decay("beta")},
      .terms = {{"E", {}}, {"A", {falls_with(0, size)}}, {"B", {falls_with(1, tokens)}}}};
  return law;
}

namespace {

const Law& granularity_law() {
  static const Law law = {
      .name = "granularity",
      .formula = "L = c + (g / G^gamma + a) / N^alpha + b / D^beta",
      .source = "Krajewski et al. 2024, arXiv 2402.07871",
      .variables = {size, tokens, granularity},
      .exponents = {decay("alpha"), decay("beta"), {"gamma", 0.01, 3.0, {0.3, 1.0}}},
      .terms = {{"c", {}},
                {"g", {falls_with(0, size), falls_with(2, granularity)}},
                {"a", {falls_with(0, size)}},
                {"b", {falls_with(1, tokens)}}}};
  return law;
}

const Law& sparsity_law() {
  static const Law law = {
      .name = "sparsity",
      .formula =
          "L = e + a / N^alpha + b / D^beta + c / (1 - S)^lambda + d / ((1 - S)^delta N^gamma)",
      .source = "Abnar et al. 2025, arXiv 2501.12370",
      .variables = {size, tokens, density},
      .exponents = {decay("alpha"),
                    decay("beta"),
                    {"lambda", -2.0, 2.0, {-0.3}},
                    {"delta", -2.0, 2.0, {0.2}},
                    {"gamma", 0.01, 2.0, {0.2, 0.6}}},
      .terms = {{"e", {}},
                {"a", {falls_with(0, size)}},
                {"b", {falls_with(1, tokens)}},
                {"c", {falls_with(2, density)}},
                {"d", {falls_with(3, density), falls_with(4, size)}}}};
  return law;
}

const Law& joint_law() {
  static const Law law = {
      .name = "joint",
      .formula = "L = c + a E^delta N^(-alpha + gamma ln E) + b E^omega D^(-beta + zeta ln E)",
      .source = "Ludziejewski et al. 2025, arXiv 2502.05172, with E for their saturating E^",
      .variables = {size, tokens, experts},
      .exponents = {decay("alpha"), decay("beta"), bend("gamma"), bend("delta"), bend("omega"),
                    bend("zeta")},
      .terms = {
          {"c", {}},
          {"a", {falls_with(0, size), grows_with(2, {size, experts}), grows_with(3, {experts})}},
          {"b",
           {falls_with(1, tokens), grows_with(5, {tokens, experts}), grows_with(4, {experts})}}}};
  return law;
}

const Law& routed_law() {
  static const Law law = {
      .name = "routed",
      .formula = "ln L = d + a ln N + b ln E + c ln N ln E   (runs of one D)",
      .source = "Clark et al. 2022, arXiv 2202.01169, equation 1, with E for their saturating E^",
      .variables = {size, experts},
      .exponents = {bend("a"), bend("b"), bend("c")},
      .terms = {
          {"exp d",
           {grows_with(0, {size}), grows_with(1, {experts}), grows_with(2, {size, experts})}}}};
  return law;
}

}  // namespace

const Law& leverage_law() {
  // ln EL = k + ln(1 - S) (alpha + beta ln G + gamma (ln G)^2 + kappa ln C)
  static const Law law = {
      .name = "leverage",
      .formula = "EL = e^k (1 - S)^(alpha + beta ln G + gamma (ln G)^2 + kappa ln C)",
      .source = "after Tian et al. 2025, arXiv 2507.17702",
      .variables = {compute, density, granularity},
      .exponents = {{"alpha", -20.0, 20.0, {0.0}},
                    {"beta", -20.0, 20.0, {0.0}},
                    {"gamma", -20.0, 20.0, {0.0}},
                    {"kappa", -2.0, 2.0, {0.0}}},
      .terms = {{"exp k",
                 {grows_with(0, {density}), grows_with(1, {density, granularity}),
                  grows_with(2, {density, granularity, granularity}),
                  grows_with(3, {density, compute})}}}};
  return law;
}

const Law& size_power_law() {
  static const Law law = {.name = "learning_rate",
                          .formula = "best learning rate = k N^a D^b",
                          .source = "form of the step law, arXiv 2503.04715",
                          .variables = {size, tokens},
                          .exponents = {{"a", -3.0, 3.0, {0.0}}, {"b", -3.0, 3.0, {0.0}}},
                          .terms = {{"k", {grows_with(0, {size}), grows_with(1, {tokens})}}}};
  return law;
}

const Law& tokens_power_law() {
  static const Law law = {.name = "batch_size",
                          .formula = "best batch in tokens = k D^b",
                          .source = "form of the step law, arXiv 2503.04715",
                          .variables = {tokens},
                          .exponents = {{"b", -3.0, 3.0, {0.0}}},
                          .terms = {{"k", {grows_with(0, {tokens})}}}};
  return law;
}

std::span<const Law* const> loss_laws() {
  static const std::array<const Law*, 5> laws = {&size_and_tokens_law(), &granularity_law(),
                                                 &sparsity_law(), &joint_law(), &routed_law()};
  return laws;
}

double feature_value(const Feature& feature, const FitPoint& point) {
  double product = feature.sign;
  for (const Variable variable : feature.logs) product *= std::log(point.value(variable));
  return product;
}

double value_of(const Law& law, std::span<const double> coefficients,
                std::span<const double> exponents, const FitPoint& point) {
  double sum = 0;
  for (std::size_t j = 0; j < law.terms.size(); ++j) {
    double power = 0;
    for (const Feature& feature : law.terms[j].features)
      power += exponents[feature.exponent] * feature_value(feature, point);
    sum += coefficients[j] * std::exp(power);
  }
  return sum;
}

}  // namespace switchyard
