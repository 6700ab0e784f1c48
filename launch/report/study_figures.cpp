#include "launch/report/study_figures.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>

#include "launch/fit/frontier.hpp"
#include "launch/fit/points.hpp"
#include "launch/report/chart.hpp"
#include "launch/report/html.hpp"
#include "tensor/error.hpp"

namespace switchyard::report {
namespace {

constexpr std::int64_t num_resamples = 60;  // of the bootstrap: a page is made in seconds
constexpr std::size_t num_curve_points = 40;
constexpr std::size_t most_families = 6;

Cell number_cell(double value, int digits = 4) {
  return std::isfinite(value) ? Cell(fmt::format("{:.{}g}", value, digits), value)
                              : Cell("–", -1e300);
}

// Runs of one kind of model, with L(N, D) of them if they can bear it.
struct Family {
  std::string name;
  std::vector<FitPoint> points;
  std::size_t color = 0;
  std::optional<LawFit> fit;
  std::string refusal;
};

std::vector<Family> families_of(const std::vector<FitPoint>& points) {
  std::vector<Family> families;
  for (const FitPoint& point : points) {
    const std::string name = text_of_family(point);
    auto found = std::ranges::find(families, name, &Family::name);
    if (found == families.end()) {
      families.push_back(
          {.name = name, .points = {}, .color = families.size(), .fit = {}, .refusal = {}});
      found = families.end() - 1;
    }
    found->points.push_back(point);
  }
  return families;
}

void fit(std::vector<Family>& families) {
  std::size_t num_fitted = 0;
  for (Family& family : families) {
    family.refusal = why_unbearable(size_and_tokens_law(), family.points);
    if (!family.refusal.empty()) continue;
    if (++num_fitted > most_families) {
      family.refusal = fmt::format(
          "only the first {} families are fitted here; `switchyard fit` fits all", most_families);
      continue;
    }
    family.fit = fit_law(size_and_tokens_law(), family.points,
                         {.num_resamples = num_resamples, .holds_out = true});
  }
}

// From the least to the largest value, evenly in the logarithm, and a factor beyond each.
std::vector<double> values_between(double least, double most, double beyond) {
  std::vector<double> values;
  const double first = std::log(least / beyond), last = std::log(most * beyond);
  for (std::size_t i = 0; i < num_curve_points; ++i)
    values.push_back(std::exp(first + (last - first) * static_cast<double>(i) /
                                          static_cast<double>(num_curve_points - 1)));
  return values;
}

std::vector<double> sorted_values(const std::vector<FitPoint>& points, Variable variable) {
  std::vector<double> values;
  for (const FitPoint& point : points) values.push_back(point.value(variable));
  std::ranges::sort(values);
  return values;
}

// What holds in 95 of 100 resamples of the runs.
template <class Value>
Band interval(const std::vector<LawParameters>& resamples, const std::vector<double>& xs,
              std::size_t color, const Value& value) {
  Band band{.lower = {}, .upper = {}, .color = color};
  for (const double x : xs) {
    std::vector<double> ys;
    for (const LawParameters& parameters : resamples) ys.push_back(value(parameters, x));
    if (ys.empty()) return band;
    std::ranges::sort(ys);
    const auto at = [&](double share) {
      return ys[static_cast<std::size_t>(std::lround(share * static_cast<double>(ys.size() - 1)))];
    };
    band.lower.push_back({x, at(0.025)});
    band.upper.push_back({x, at(0.975)});
  }
  return band;
}

// Losses against one variable; of each family a curve of its law, with the other variable at its
// median, and the interval of that curve.
std::string loss_against(const std::vector<Family>& families, Variable variable, Variable other,
                         const Chart& chart) {
  std::vector<Series> series;
  std::vector<Band> bands;
  for (const Family& family : families) {
    std::vector<Point> dots;
    for (const FitPoint& point : family.points) dots.push_back({point.value(variable), point.loss});
    series.push_back({family.name, dots, Mark::dots, family.color});
    if (!family.fit) continue;
    const std::vector<double> range = sorted_values(family.points, variable);
    const std::vector<double> others = sorted_values(family.points, other);
    const std::vector<double> xs = values_between(range.front(), range.back(), 1.2);
    FitPoint at = family.points.front();
    at.value(other) = others[others.size() / 2];
    const auto loss = [&](const LawParameters& parameters, double x) {
      at.value(variable) = x;
      return value_of(*family.fit->law, parameters.coefficients, parameters.exponents, at);
    };
    std::vector<Point> curve;
    for (const double x : xs) curve.push_back({x, loss(family.fit->parameters, x)});
    series.push_back({"", curve, Mark::line, family.color});
    bands.push_back(interval(family.fit->resamples, xs, family.color, loss));
  }
  return line_figure(chart, series, bands, "The file has no finished run with a loss.");
}

std::string granularity_figure(const std::vector<FitPoint>& points, std::string& refusals) {
  const Law* law = nullptr;
  for (const Law* one : loss_laws())
    if (one->name == "granularity") law = one;
  std::vector<FitPoint> routed = points;
  std::erase_if(routed, [](const FitPoint& point) { return point.is_dense(); });
  // Runs that differ in little else are joined: parameters of the router follow the granularity.
  std::map<std::pair<long, long>, std::vector<Point>> groups;
  for (const FitPoint& point : routed)
    groups[{std::lround(std::log(point.value(Variable::size)) / 0.1),
            std::lround(std::log(point.value(Variable::tokens)) / 0.05)}]
        .push_back({point.value(Variable::granularity), point.loss});
  std::vector<Series> series;
  std::vector<Band> bands;
  for (auto& [place, points_of_group] : groups) {
    std::ranges::sort(points_of_group, {}, &Point::x);
    if (points_of_group.size() > 1) series.push_back({"", points_of_group, Mark::dashed, 0});
  }
  std::vector<Point> dots;
  for (const FitPoint& point : routed)
    dots.push_back({point.value(Variable::granularity), point.loss});
  series.push_back({"runs with experts", dots, Mark::dots, 0});
  const std::string refusal = law == nullptr ? "" : why_unbearable(*law, routed);
  if (law != nullptr && refusal.empty()) {
    const LawFit found =
        fit_law(*law, routed, {.num_resamples = num_resamples, .holds_out = false});
    const std::vector<double> range = sorted_values(routed, Variable::granularity);
    const std::vector<double> sizes = sorted_values(routed, Variable::size);
    const std::vector<double> tokens = sorted_values(routed, Variable::tokens);
    FitPoint at = routed.front();
    at.value(Variable::size) = sizes[sizes.size() / 2];
    at.value(Variable::tokens) = tokens[tokens.size() / 2];
    const auto loss = [&](const LawParameters& parameters, double x) {
      at.value(Variable::granularity) = x;
      return value_of(*law, parameters.coefficients, parameters.exponents, at);
    };
    const std::vector<double> xs = values_between(range.front(), range.back(), 1.1);
    std::vector<Point> curve;
    for (const double x : xs) curve.push_back({x, loss(found.parameters, x)});
    series.push_back({fmt::format("law at N = {:.3g}, D = {:.3g}, the medians",
                                  at.value(Variable::size), at.value(Variable::tokens)),
                      curve, Mark::line, 1});
    bands.push_back(interval(found.resamples, xs, 1, loss));
  } else if (!refusal.empty()) {
    refusals += paragraph("No law of granularity: " + refusal + ".");
  }
  return line_figure({.id = "loss-by-granularity",
                      .caption = "Loss by granularity",
                      .note = "G: width of the dense feed-forward over that of an expert. Dashed: "
                              "runs of nearly the same N and D.",
                      .x = {.label = "granularity", .logarithmic = true},
                      .y = {.label = "loss, nats a token"}},
                     series, bands, "The study has no finished run with experts.");
}

std::string frontier_figures(const std::vector<Family>& families) {
  std::vector<Series> losses, sizes;
  std::vector<Band> loss_bands, size_bands;
  Table table{
      .heads = {"models", "compute, FLOP", "best N", "best D", "D / N", "loss", "95 %: from", "to"},
      .rows = {}};
  for (const Family& family : families) {
    std::vector<Point> dots;
    for (const FitPoint& point : family.points)
      dots.push_back({point.value(Variable::compute), point.loss});
    losses.push_back({family.name, dots, Mark::dots, family.color});
    if (!family.fit) continue;
    const std::vector<double> range = sorted_values(family.points, Variable::compute);
    const std::vector<double> xs = values_between(range.front(), range.back(), 10);
    const Frontier frontier(family.fit->parameters);
    std::vector<Point> curve, best;
    for (const double x : xs) {
      curve.push_back({x, frontier.loss(x)});
      best.push_back({x, frontier.size(x)});
    }
    losses.push_back({"", curve, Mark::line, family.color});
    sizes.push_back({family.name, best, Mark::line, family.color});
    const auto loss = [](const LawParameters& parameters, double x) {
      return Frontier(parameters).loss(x);
    };
    loss_bands.push_back(interval(family.fit->resamples, xs, family.color, loss));
    size_bands.push_back(interval(
        family.fit->resamples, xs, family.color,
        [](const LawParameters& parameters, double x) { return Frontier(parameters).size(x); }));
    const double largest = range.back();
    for (const double compute : {largest / 10, largest, largest * 10}) {
      const Band band = interval(family.fit->resamples, {compute}, 0, loss);
      const bool is_known = !band.lower.empty();
      table.rows.push_back({family.name, number_cell(compute, 3),
                            number_cell(frontier.size(compute), 3),
                            number_cell(frontier.tokens(compute), 3),
                            number_cell(frontier.tokens(compute) / frontier.size(compute), 3),
                            number_cell(frontier.loss(compute)),
                            number_cell(is_known ? band.lower.front().y : unknown),
                            number_cell(is_known ? band.upper.front().y : unknown)});
    }
  }
  const std::string none = "The points bear no law of N and D, from which the frontier follows.";
  return "<div class=\"figures\">\n" +
         line_figure({.id = "frontier-loss",
                      .caption = "Compute-optimal frontier",
                      .note = "Runs, and the least loss that the law gives for a compute of 6 N D; "
                              "the last factor of ten on each side is beyond the runs.",
                      .x = {.label = "compute, FLOP", .logarithmic = true},
                      .y = {.label = "loss, nats a token"}},
                     losses, loss_bands, none) +
         line_figure({.id = "frontier-size",
                      .caption = "Best size for a compute",
                      .note = {},
                      .x = {.label = "compute, FLOP", .logarithmic = true},
                      .y = {.label = "parameters", .logarithmic = true}},
                     sizes, size_bands, none) +
         "</div>\n" + table_html(table);
}

std::string coefficients_table(const LawFit& found) {
  Table table{.heads = {"", "value", "95 %: from", "to"}, .rows = {}};
  const auto add = [&](std::string_view name, double value, const std::vector<Interval>& intervals,
                       std::size_t index) {
    const bool is_known = index < intervals.size();
    table.rows.push_back({Cell(name), number_cell(value, 5),
                          number_cell(is_known ? intervals[index].low : unknown),
                          number_cell(is_known ? intervals[index].high : unknown)});
  };
  for (std::size_t j = 0; j < found.law->terms.size(); ++j)
    add(found.law->terms[j].coefficient, found.parameters.coefficients[j],
        found.coefficient_intervals, j);
  for (std::size_t k = 0; k < found.law->exponents.size(); ++k)
    add(found.law->exponents[k].name, found.parameters.exponents[k], found.exponent_intervals, k);
  return table_html(table);
}

std::string laws_text(const std::vector<Family>& families) {
  std::string out;
  for (const Family& family : families) {
    if (!family.fit) {
      out += paragraph(fmt::format("No law of {}: {}.", family.name, family.refusal));
      continue;
    }
    const LawFit& found = *family.fit;
    out += fmt::format("<h3>{}: {}</h3>\n", escape(family.name), escape(found.law->formula));
    out += coefficients_table(found);
    out += paragraph(fmt::format(
        "{} runs; residuals of ln L: {:.2g} in the root mean square. Intervals: bootstrap over the "
        "runs, {} "
        "resamples. Source: {}.",
        found.points.size(), found.root_mean_square(), found.num_resamples, found.law->source));
    out += paragraph(
        found.held_out.problem.empty()
            ? fmt::format("Foretold from the others, {} of the largest compute: mean error "
                          "{:.2g} %, bias {:+.2g} %.",
                          found.held_out.num_points, 100 * found.held_out.mean_error,
                          100 * found.held_out.bias)
            : "The runs of the largest compute cannot be foretold from the others: " +
                  found.held_out.problem + ".");
    for (const std::string& warning : found.warnings) out += paragraph("Beware: " + warning + ".");
  }
  return out;
}

std::string residuals_figure(const std::vector<Family>& families) {
  std::vector<Series> series;
  for (const Family& family : families) {
    if (!family.fit) continue;
    std::vector<Point> dots;
    for (std::size_t i = 0; i < family.points.size(); ++i)
      dots.push_back(
          {family.fit->points[i].value(Variable::compute), 100 * family.fit->residuals[i]});
    series.push_back({family.name, dots, Mark::dots, family.color});
  }
  return line_figure({.id = "residuals",
                      .caption = "Residuals of the laws",
                      .note = {},
                      .x = {.label = "compute, FLOP", .logarithmic = true},
                      .y = {.label = "loss over the law's, less 1, in %"}},
                     series, {}, "The points bear no law.");
}

}  // namespace

std::string repeats_section(const StudyData& study) {
  const switchyard::Table& repeats = study.repeats;
  for (const char* name : {"set", "num_repeats", "median_loss", "least_loss", "largest_loss",
                           "std_loss", "first_point"})
    if (!repeats.has(name)) return {};
  Table table{.heads = {"first point", "set", "runs done", "median loss", "least", "largest",
                        "standard deviation"},
              .rows = {}};
  const std::vector<std::string> sets = repeats.texts("set");
  std::map<std::string, std::vector<double>> columns;
  for (const char* name :
       {"first_point", "num_repeats", "median_loss", "least_loss", "largest_loss", "std_loss"})
    columns[name] = repeats.numbers(name);
  for (std::size_t i = 0; i < sets.size(); ++i) {
    const double first = columns["first_point"][i];
    const bool is_known = first >= 0 && first < static_cast<double>(study.points.size());
    table.rows.push_back(
        {is_known ? study.points[static_cast<std::size_t>(first)].name : "–", sets[i],
         number_cell(columns["num_repeats"][i]), number_cell(columns["median_loss"][i], 5),
         number_cell(columns["least_loss"][i], 5), number_cell(columns["largest_loss"][i], 5),
         number_cell(columns["std_loss"][i], 2)});
  }
  std::string noise = std::isfinite(study.noise)
                          ? fmt::format("Standard deviation of a loss over seeds: {:.2g} ({}).",
                                        study.noise, study.noise_source)
                          : std::string();
  if (std::isfinite(study.effect))
    noise += fmt::format(" Differences asked for: {:.2g} and more.", study.effect);
  return table_html(table) + (noise.empty() ? noise : paragraph(noise));
}

std::string laws_section(const StudyData& study) {
  std::string refusals;
  PointSet set;
  try {
    set = points_of(study.table, study.path, {});
  } catch (const Error& error) {
    return paragraph(error.what());
  }
  for (const std::string& note : set.notes) refusals += paragraph(note + ".");
  std::vector<Family> families = families_of(set.points);
  fit(families);
  const std::string nats = "loss, nats a token";
  std::string figures = loss_against(families, Variable::size, Variable::tokens,
                                     {.id = "loss-by-size",
                                      .caption = "Loss by size",
                                      .note = "N: parameters that a token passes. Lines: the laws "
                                              "at each median D. Bands: 95 % of the bootstrap.",
                                      .x = {.label = "parameters", .logarithmic = true},
                                      .y = {.label = nats}}) +
                        loss_against(families, Variable::tokens, Variable::size,
                                     {.id = "loss-by-data",
                                      .caption = "Loss by tokens trained on",
                                      .note = "Lines: the laws at each median N.",
                                      .x = {.label = "tokens", .logarithmic = true},
                                      .y = {.label = nats}});
  figures += granularity_figure(set.points, refusals);
  figures += residuals_figure(families);
  return refusals + "<div class=\"figures\">\n" + figures + "</div>\n" +
         frontier_figures(families) + laws_text(families);
}

}  // namespace switchyard::report
