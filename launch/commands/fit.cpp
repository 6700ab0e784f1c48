// switchyard fit: scaling laws of a study's runs, or of a CSV file's.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>

#include "launch/commands/commands.hpp"
#include "launch/commands/table_text.hpp"
#include "launch/fit/frontier.hpp"
#include "launch/fit/points.hpp"
#include "launch/options.hpp"
#include "launch/suggestion.hpp"

namespace switchyard {
namespace {

using Rows = std::vector<std::vector<std::string>>;

// What the laws of a file are, in the order of their printing.
struct NamedFit {
  std::string title;  // "tokens", "tokens (8 experts, top 2)"
  LawFit fit;
};

struct Fits {
  std::vector<NamedFit> fits;
  std::vector<std::string> refusals;  // "granularity: the runs have 1 value of G ..."
  std::vector<std::string> notes;
};

// Runs of one kind of model: L(N, D) is a law of each kind.
using Family = std::array<long, 3>;
Family family_of(const FitPoint& point) {
  const auto rounded = [](double value) { return std::lround(std::log(value) / 0.02); };
  return {rounded(point.value(Variable::experts)), rounded(point.active_share),
          rounded(point.value(Variable::granularity))};
}

class Fitter {
 public:
  Fitter(std::vector<FitPoint> points, std::string wanted, const LawFitSettings& settings)
      : points_(std::move(points)), wanted_(std::move(wanted)), settings_(settings) {}

  Fits run() {
    fit_families();
    for (const Law* law : loss_laws())
      if (law != &size_and_tokens_law()) try_fit(*law, std::string(law->name), points_);
    fit_leverage();
    fit_best(Tuned::learning_rate, size_power_law());
    fit_best(Tuned::batch, tokens_power_law());
    return std::move(fits_);
  }

 private:
  bool is_wanted(const Law& law) const { return wanted_ == "all" || wanted_ == law.name; }

  void try_fit(const Law& law, const std::string& title, const std::vector<FitPoint>& points) {
    if (!is_wanted(law)) return;
    if (const std::string problem = why_unbearable(law, points); !problem.empty())
      fits_.refusals.push_back(fmt::format("{}: {}", title, problem));
    else
      fits_.fits.push_back({title, fit_law(law, points, settings_)});
  }

  void fit_families() {
    std::map<Family, std::vector<FitPoint>> families;
    for (const FitPoint& point : points_) families[family_of(point)].push_back(point);
    const Law& law = size_and_tokens_law();
    for (const auto& [key, members] : families) {
      try_fit(law,
              families.size() == 1
                  ? std::string(law.name)
                  : fmt::format("{} ({})", law.name, text_of_family(members.front())),
              members);
    }
  }

  void fit_leverage() {
    const Law& law = leverage_law();
    if (!is_wanted(law)) return;
    std::vector<FitPoint> dense, routed;
    for (const FitPoint& point : points_) (point.is_dense() ? dense : routed).push_back(point);
    if (dense.empty() || routed.empty()) {
      fits_.refusals.push_back(
          fmt::format("{}: it compares runs with experts with dense ones (experts.every=0), and "
                      "there are {} and "
                      "{}",
                      law.name, routed.size(), dense.size()));
      return;
    }
    const Law& of_dense = size_and_tokens_law();
    if (const std::string problem = why_unbearable(of_dense, dense); !problem.empty()) {
      fits_.refusals.push_back(
          fmt::format("{}: it needs L(N, D) of the dense runs: {}", law.name, problem));
      return;
    }
    const Frontier frontier(fit_parameters(of_dense, dense, {.delta = settings_.delta}));
    const std::vector<FitPoint> points = leverages(frontier, routed);
    std::vector<double> values;
    for (const FitPoint& point : points) values.push_back(point.loss);
    std::sort(values.begin(), values.end());
    if (!values.empty())
      fits_.notes.push_back(fmt::format(
          "leverage: dense models on their frontier need {:.3g} to {:.3g} (median {:.3g}) "
          "times the compute of the {} runs with experts for the same loss",
          values.front(), values.back(), values[values.size() / 2], values.size()));
    try_fit(law, std::string(law.name), points);
  }

  void fit_best(Tuned tuned, const Law& law) {
    if (!is_wanted(law)) return;
    std::vector<std::string> notes;
    const std::vector<FitPoint> best = best_values(tuned, points_, notes);
    for (const std::string& note : notes) fits_.notes.push_back(note);
    LawFitSettings settings = settings_;
    settings.holds_out = false;
    if (const std::string problem = why_unbearable(law, best); !problem.empty())
      fits_.refusals.push_back(
          fmt::format("{}: of groups of runs that differ in it alone: {}", law.name, problem));
    else
      fits_.fits.push_back({std::string(law.name), fit_law(law, best, settings)});
  }

  std::vector<FitPoint> points_;
  std::string wanted_;
  LawFitSettings settings_;
  Fits fits_;
};

std::string parameters_text(const LawFit& fit) {
  Rows rows;
  const auto add = [&](std::string_view name, double value, const std::vector<Interval>& intervals,
                       std::size_t index) {
    std::vector<std::string> row = {std::string(name), fmt::format("{:.5g}", value)};
    if (!intervals.empty()) {
      const Interval& interval = intervals[index];
      row.push_back(fmt::format("+- {:.2g}", interval.standard_error));
      row.push_back(fmt::format("{:.4g} to {:.4g}", interval.low, interval.high));
    }
    rows.push_back(std::move(row));
  };
  for (std::size_t j = 0; j < fit.law->terms.size(); ++j)
    add(fit.law->terms[j].coefficient, fit.parameters.coefficients[j], fit.coefficient_intervals,
        j);
  for (std::size_t k = 0; k < fit.law->exponents.size(); ++k)
    add(fit.law->exponents[k].name, fit.parameters.exponents[k], fit.exponent_intervals, k);
  return table_text(rows);
}

std::string residuals_text(const LawFit& fit, std::int64_t num_shown) {
  std::vector<std::size_t> order(fit.points.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return std::abs(fit.residuals[a]) > std::abs(fit.residuals[b]);
  });
  order.resize(std::min(order.size(), static_cast<std::size_t>(num_shown)));
  Rows rows = {{"run", "N", "D", "value", "law", "ln value - ln law"}};
  for (const std::size_t i : order) {
    const FitPoint& point = fit.points[i];
    rows.push_back({point.name, fmt::format("{:.3g}", point.value(Variable::size)),
                    fmt::format("{:.3g}", point.value(Variable::tokens)),
                    fmt::format("{:.5g}", point.loss), fmt::format("{:.5g}", fit.predict(point)),
                    fmt::format("{:+.5f}", fit.residuals[i])});
  }
  return fmt::format("residuals: root mean square {:.2g}; the largest:\n{}", fit.root_mean_square(),
                     table_text(rows));
}

std::string held_out_text(const HeldOut& held) {
  if (!held.problem.empty())
    return fmt::format("the largest budget cannot be held out: without it, {}\n", held.problem);
  return fmt::format(
      "the largest budget held out ({} runs of at least {:.3g} FLOPs): the law of the others "
      "misses "
      "ln L by {:.2g} in the mean, {:+.2g} with its sign\n",
      held.num_points, held.least_compute, held.mean_error, held.bias);
}

std::string frontier_text(const LawFit& fit) {
  const Frontier frontier(fit.parameters);
  double largest = 0;
  for (const FitPoint& point : fit.points)
    largest = std::max(largest, point.value(Variable::compute));
  Rows rows = {{"C", "N", "D", "L"}};
  for (const double factor : {0.01, 0.1, 1.0, 10.0, 100.0}) {
    const double compute = largest * factor;
    rows.push_back({fmt::format("{:.3g}", compute), fmt::format("{:.3g}", frontier.size(compute)),
                    fmt::format("{:.3g}", frontier.tokens(compute)),
                    fmt::format("{:.4g}", frontier.loss(compute))});
  }
  return fmt::format(
      "compute-optimal: N ~ C^{:.3f}, D ~ C^{:.3f}; beyond C = {:.3g} nothing was "
      "measured\n{}",
      frontier.size_exponent(), 1 - frontier.size_exponent(), largest, table_text(rows));
}

void print_fit(const NamedFit& named, double delta, std::int64_t num_residuals) {
  const LawFit& fit = named.fit;
  std::cout << fmt::format(
      "\n{}: {}\n({})\n{} runs; Huber loss on ln of the value, delta {}, summed: "
      "{:.6g}",
      named.title, fit.law->formula, fit.law->source, fit.points.size(), delta,
      fit.parameters.objective);
  if (!fit.coefficient_intervals.empty())
    std::cout << fmt::format("; 95 % intervals from {} resamples of the runs", fit.num_resamples);
  std::cout << "\n" << parameters_text(fit);
  for (const std::string& warning : fit.warnings) std::cout << "warning: " << warning << '\n';
  std::cout << residuals_text(fit, num_residuals);
  if (fit.held_out.num_points > 0) std::cout << held_out_text(fit.held_out);
  if (fit.law == &size_and_tokens_law()) std::cout << frontier_text(fit);
}

nlohmann::ordered_json json_of(const NamedFit& named) {
  const LawFit& fit = named.fit;
  nlohmann::ordered_json json = {{"title", named.title},
                                 {"law", fit.law->name},
                                 {"formula", fit.law->formula},
                                 {"source", fit.law->source},
                                 {"objective", fit.parameters.objective},
                                 {"num_resamples", fit.num_resamples},
                                 {"root_mean_square", fit.root_mean_square()},
                                 {"warnings", fit.warnings}};
  const auto add = [&](std::string_view name, double value, const std::vector<Interval>& intervals,
                       std::size_t index) {
    nlohmann::ordered_json entry = {{"value", value}};
    if (!intervals.empty()) {
      entry["standard_error"] = intervals[index].standard_error;
      entry["low"] = intervals[index].low;
      entry["high"] = intervals[index].high;
    }
    json["parameters"][std::string(name)] = std::move(entry);
  };
  for (std::size_t j = 0; j < fit.law->terms.size(); ++j)
    add(fit.law->terms[j].coefficient, fit.parameters.coefficients[j], fit.coefficient_intervals,
        j);
  for (std::size_t k = 0; k < fit.law->exponents.size(); ++k)
    add(fit.law->exponents[k].name, fit.parameters.exponents[k], fit.exponent_intervals, k);
  if (fit.held_out.problem.empty() && fit.held_out.num_points > 0)
    json["held_out"] = {{"num_runs", fit.held_out.num_points},
                        {"least_compute", fit.held_out.least_compute},
                        {"mean_error", fit.held_out.mean_error},
                        {"bias", fit.held_out.bias}};
  for (std::size_t i = 0; i < fit.points.size(); ++i)
    json["residuals"].push_back({{"run", fit.points[i].name},
                                 {"value", fit.points[i].loss},
                                 {"law", fit.predict(fit.points[i])},
                                 {"residual", fit.residuals[i]}});
  return json;
}

std::vector<std::string_view> law_names() {
  std::vector<std::string_view> names = {"all"};
  for (const Law* law : loss_laws()) names.push_back(law->name);
  for (const Law* law : {&leverage_law(), &size_power_law(), &tokens_power_law()})
    names.push_back(law->name);
  return names;
}

}  // namespace

int run_fit(const CommandContext& context) {
  std::string wanted = "all", columns;
  PointSettings point_settings;
  LawFitSettings settings;
  std::int64_t num_residuals = 5;
  bool json = false;
  std::vector<std::string> arguments;
  Options options("fit", "STUDY.h5|RUNS.csv",
                  "Fits scaling laws to finished runs: each that they can bear, and why not the "
                  "others. docs/scaling_laws.md has the laws, their sources and the columns.");
  options
      .add("law", "NAME", wanted,
           "only this: tokens, granularity, sparsity, joint, routed, leverage, learning_rate, "
           "batch_size")
      .add("drop-lowest-ratio", "N", point_settings.drop_lowest_ratio,
           "leave out the N runs of the lowest D/N")
      .add("size", "KIND", point_settings.size,
           "parameters that N counts: active (default), non_embedding or total")
      .add("columns", "N=NAME,...", columns, "names of columns, where the usual ones do not fit")
      .add("bootstrap", "N", settings.num_resamples,
           "resamples of the runs for intervals (default 200; 0: none)")
      .add("seed", "N", settings.seed, "of the resamples (default 1)")
      .add("delta", "X", settings.delta, "of the Huber loss on ln L (default 0.001)")
      .add("residuals", "N", num_residuals, "how many of the largest are shown (default 5)")
      .add("json", json, "print JSON, with all residuals")
      .arguments("STUDY", arguments, 1, 1);
  if (!options.parse(context.arguments)) return 0;
  const std::vector<std::string_view> names = law_names();
  if (std::find(names.begin(), names.end(), wanted) == names.end())
    throw UsageError("fit", "--law: " + unknown_choice(wanted, names));
  if (!(settings.delta > 0)) throw UsageError("fit", "--delta must be above 0");
  if (settings.num_resamples < 0 || settings.num_resamples > 100'000)
    throw UsageError("fit", "--bootstrap must be from 0 to 100000");
  if (num_residuals < 0 || point_settings.drop_lowest_ratio < 0)
    throw UsageError("fit", "--residuals and --drop-lowest-ratio must be at least 0");
  point_settings.columns = parse_columns(columns);

  const std::string& path = arguments.front();
  PointSet set = points_of(read_runs(path), path, point_settings);
  const std::size_t num_runs = set.points.size();
  Fits fits = Fitter(std::move(set.points), wanted, settings).run();
  if (fits.fits.empty()) {
    std::string text = fmt::format("{}: {} runs, which can bear no law:", path, num_runs);
    for (const std::string& refusal : fits.refusals) text += "\n" + refusal;
    throw DataError(text);
  }
  set.notes.insert(set.notes.end(), fits.notes.begin(), fits.notes.end());
  if (json) {
    nlohmann::ordered_json all = {
        {"file", path}, {"num_runs", num_runs}, {"notes", set.notes}, {"refused", fits.refusals}};
    for (const NamedFit& named : fits.fits) all["fits"].push_back(json_of(named));
    std::cout << all.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) << std::endl;
    return 0;
  }
  std::cout << fmt::format("{}: {} runs\n", path, num_runs);
  for (const std::string& note : set.notes) std::cout << note << '\n';
  for (const NamedFit& named : fits.fits) print_fit(named, settings.delta, num_residuals);
  if (!fits.refusals.empty()) std::cout << "\nNot fitted:\n";
  for (const std::string& refusal : fits.refusals) std::cout << "  " << refusal << '\n';
  std::cout << std::flush;
  return 0;
}

}  // namespace switchyard
