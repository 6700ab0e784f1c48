// Strong and weak scaling among the runs of a report.
#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>
#include <set>

#include "launch/report/chart.hpp"
#include "launch/report/html.hpp"
#include "launch/report/run_figures.hpp"

namespace switchyard::report {
namespace {

// Keys that may differ between runs of one scaling curve: where and how, not what is computed.
bool is_of_layout(std::string_view key) {
  for (const std::string_view prefix :
       {"run.output", "run.threads", "run.device", "run.seed", "parallel.", "train.micro_batch",
        "train.num_steps", "checkpoint.", "evaluate.", "watchdog.", "capture.", "profile.",
        "metrics.", "activations."})
    if (key.starts_with(prefix)) return true;
  return false;
}

struct Sample {
  double ranks;
  double tokens_per_second;
};

// Runs that compute the same, by the text of what they have in common. Weak: the batch of a rank is
// the same, and that of the job may differ.
std::map<std::string, std::vector<Sample>> alike(const std::vector<RunData>& runs, bool weak) {
  std::map<std::string, std::vector<Sample>> groups;
  for (const RunData& run : runs) {
    const double speed = usual_tokens_per_second(run);
    if (!run.record || !(run.record->num_ranks >= 1) || !(speed > 0) || run.config.empty())
      continue;
    std::string common;
    for (const auto& [key, value] : run.config)
      if (!is_of_layout(key) && !(weak && key == "train.global_batch"))
        common += key + "=" + value + "\n";
    if (weak)
      common += fmt::format("{}", std::strtod(run.value_of("train.global_batch").c_str(), nullptr) /
                                      run.record->num_ranks);
    groups[common].push_back({run.record->num_ranks, speed});
  }
  std::erase_if(groups, [](const auto& group) {
    std::set<double> ranks;
    for (const Sample& sample : group.second) ranks.insert(sample.ranks);
    return ranks.size() < 2;
  });
  return groups;
}

// The fastest layout of each number of ranks; repeats are among those.
std::vector<Point> fastest(const std::vector<Sample>& samples) {
  std::map<double, double> best;
  for (const Sample& sample : samples)
    best[sample.ranks] = std::max(best[sample.ranks], sample.tokens_per_second);
  std::vector<Point> points;
  for (const auto& [ranks, speed] : best) points.push_back({ranks, speed});
  return points;
}

std::string figures_of(const std::vector<RunData>& runs, bool weak) {
  const std::string kind = weak ? "weak" : "strong";
  std::vector<Series> speeds, efficiencies;
  std::size_t color = 0;
  for (const auto& [common, samples] : alike(runs, weak)) {
    const std::vector<Point> measured = fastest(samples);
    const Point& first = measured.front();
    std::vector<Point> ideal, efficiency;
    for (const Point& point : measured) {
      ideal.push_back({point.x, first.y * point.x / first.x});
      efficiency.push_back({point.x, 100 * point.y / ideal.back().y});
    }
    const std::string name = fmt::format("model {}", color + 1);
    speeds.push_back({name, measured, Mark::line, color});
    speeds.push_back({"", measured, Mark::dots, color});
    speeds.push_back({"", ideal, Mark::dashed, color});
    efficiencies.push_back({name, efficiency, Mark::line, color});
    efficiencies.push_back({"", efficiency, Mark::dots, color});
    ++color;
  }
  const std::string what = weak ? "Weak scaling" : "Strong scaling";
  const std::string none = fmt::format(
      "No two runs here have different numbers of ranks and the same {} (and the same model and "
      "data).",
      weak ? "batch of a rank" : "batch of the job");
  const std::string note =
      "The fastest layout of each number of ranks; dashed: ideal, from the fewest ranks.";
  return line_figure({.id = kind + "-scaling",
                      .caption = what,
                      .note = note,
                      .x = {.label = "ranks", .logarithmic = true, .whole = true},
                      .y = {.label = "tokens a second", .logarithmic = true}},
                     speeds, {}, none) +
         line_figure({.id = kind + "-efficiency",
                      .caption = what + ": efficiency",
                      .note = {},
                      .x = {.label = "ranks", .logarithmic = true, .whole = true},
                      .y = {.label = "% of ideal", .from_zero = true}},
                     efficiencies, {}, none);
}

}  // namespace

std::string scaling_figures(const std::vector<RunData>& runs) {
  return figures_of(runs, false) + figures_of(runs, true);
}

}  // namespace switchyard::report
