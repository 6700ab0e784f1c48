#include "launch/report/run_figures.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>

#include "launch/report/chart.hpp"
#include "launch/report/html.hpp"

namespace switchyard::report {
namespace {

constexpr std::size_t most_points = 8000;  // of a figure, all runs together
constexpr std::size_t most_keys = 16;

std::size_t points_of_run(const std::vector<RunData>& runs) {
  return std::clamp(most_points / std::max<std::size_t>(runs.size(), 1), std::size_t{40},
                    std::size_t{600});
}

using Value = std::function<double(const StepData&)>;
// Of each step of a run, in order: a running sum may be among them.
using Abscissa = std::function<std::vector<double>(const RunData&)>;

std::vector<double> values_of(const RunData& run, const Value& value) {
  std::vector<double> values;
  values.reserve(run.steps.size());
  for (const StepData& step : run.steps) values.push_back(value(step));
  return values;
}

std::vector<double> sums_of(const RunData& run, const Value& value) {
  std::vector<double> values = values_of(run, value);
  double sum = 0;
  for (double& one : values) one = sum += std::isfinite(one) ? one : 0;
  return values;
}

std::vector<double> steps_of(const RunData& run) {
  return values_of(run, [](const StepData& step) { return step.step; });
}

std::vector<Point> zip(const std::vector<double>& x, const std::vector<double>& y) {
  std::vector<Point> points;
  for (std::size_t i = 0; i < x.size(); ++i) points.push_back({x[i], y[i]});
  return points;
}

// The evaluations at the places of their steps.
std::vector<Point> evaluations_at(const RunData& run, const std::vector<double>& x) {
  std::vector<Point> points;
  for (const Evaluation& evaluation : run.evaluations) {
    const auto found = std::ranges::find_if(
        run.steps, [&](const StepData& step) { return step.step == evaluation.step; });
    if (found != run.steps.end())
      points.push_back({x[static_cast<std::size_t>(found - run.steps.begin())], evaluation.loss});
  }
  return points;
}

std::string joined(std::string first, const std::string& second) {
  if (!first.empty() && !second.empty()) first += ' ';
  return first + second;
}

std::string curves(const std::vector<RunData>& runs, const Palette& palette, Chart chart,
                   const Value& value, bool with_evaluations = false,
                   const Abscissa& abscissa = steps_of) {
  const std::size_t most = points_of_run(runs);
  std::vector<Series> lines, dots;
  bool is_averaged = false;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    const auto& [color, name] = palette.entries[i];
    const std::vector<double> x = abscissa(runs[i]);
    const std::vector<Point> points = zip(x, values_of(runs[i], value));
    is_averaged = is_averaged || points.size() > most;
    lines.push_back({name, averaged(points, most), Mark::line, color});
    if (with_evaluations && !runs[i].evaluations.empty())
      dots.push_back({"", thinned(evaluations_at(runs[i], x), most), Mark::dots, color});
  }
  if (is_averaged) chart.note = joined(chart.note, "Points are means of neighbouring steps.");
  if (!dots.empty()) chart.note = joined(chart.note, "Dots: validation loss.");
  chart.note = joined(chart.note, palette.note);
  lines.insert(lines.end(), dots.begin(), dots.end());
  return line_figure(chart, lines, {}, "No run here has recorded it.");
}

std::vector<double> flops_of(const RunData& run) {
  return sums_of(run, [](const StepData& s) { return s.model_flops_per_second * s.seconds; });
}

}  // namespace

Palette palette_of(const std::vector<RunData>& runs, const std::vector<std::string>& groups) {
  Palette palette;
  std::map<std::string, std::size_t> seen;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    const std::string& name = groups.empty() ? runs[i].name : groups[i];
    const auto [found, is_new] = seen.emplace(name, seen.size());
    palette.entries.push_back({found->second, is_new ? name : std::string()});
  }
  if (seen.size() > most_keys) {
    for (Palette::Entry& entry : palette.entries) entry.name.clear();
    palette.note = fmt::format("{} {}, whose colours repeat: the tables have their names.",
                               seen.size(), groups.empty() ? "runs" : "sets");
  }
  return palette;
}

std::string curve_figures(const std::vector<RunData>& runs, const Palette& palette) {
  const Value loss = [](const StepData& s) { return s.cross_entropy; };
  const std::string nats = "cross-entropy, nats a token";
  std::string out = curves(runs, palette,
                           {.id = "loss-by-step",
                            .caption = "Loss by step",
                            .note = {},
                            .x = {.label = "step"},
                            .y = {.label = nats}},
                           loss, true);
  out += curves(runs, palette,
                {.id = "loss-by-tokens",
                 .caption = "Loss by tokens",
                 .note = {},
                 .x = {.label = "tokens, all ranks"},
                 .y = {.label = nats}},
                loss, true, [](const RunData& run) {
                  return values_of(run, [](const StepData& s) { return s.num_tokens; });
                });
  out += curves(runs, palette,
                {.id = "loss-by-flops",
                 .caption = "Loss by work",
                 .note = {},
                 .x = {.label = "FLOPs of the model, forward and backward", .logarithmic = true},
                 .y = {.label = nats}},
                loss, true, flops_of);
  out += curves(runs, palette,
                {.id = "loss-by-time",
                 .caption = "Loss by time",
                 .note = "Time of steps: evaluations, checkpoints and lost time are not in it.",
                 .x = {.label = "seconds"},
                 .y = {.label = nats}},
                loss, true, [](const RunData& run) {
                  return sums_of(run, [](const StepData& s) { return s.seconds; });
                });
  out += curves(runs, palette,
                {.id = "tokens-per-second",
                 .caption = "Speed",
                 .note = {},
                 .x = {.label = "step"},
                 .y = {.label = "tokens a second, all ranks", .from_zero = true}},
                [](const StepData& s) { return s.tokens_per_second; });
  out += curves(runs, palette,
                {.id = "gradient-norm",
                 .caption = "Gradient norm, before clipping",
                 .note = {},
                 .x = {.label = "step"},
                 .y = {.label = "norm", .logarithmic = true}},
                [](const StepData& s) { return s.grad_norm; });
  out += curves(runs, palette,
                {.id = "learning-rate",
                 .caption = "Learning rate",
                 .note = {},
                 .x = {.label = "step"},
                 .y = {.label = "rate", .from_zero = true}},
                [](const StepData& s) { return s.learning_rate; });
  return out;
}

namespace {

const std::string no_parts =
    "No run here has recorded it: part_seconds are missing in metrics.jsonl.";

// Means of neighbouring steps, one layer a part.
std::vector<Layer> parts_by_step(const RunData& run, std::size_t num_columns,
                                 std::vector<double>& x) {
  std::vector<const StepData*> steps;
  for (const StepData& step : run.steps)
    if (step.part_seconds) steps.push_back(&step);
  const std::size_t columns = std::min(num_columns, steps.size());
  std::vector<Layer> layers;
  for (std::size_t part = 0; part < num_parts; ++part)
    layers.push_back({std::string(name_of(static_cast<Part>(part))), std::vector<double>(columns)});
  for (std::size_t column = 0; column < columns; ++column) {
    const std::size_t begin = steps.size() * column / columns;
    const std::size_t end = steps.size() * (column + 1) / columns;
    x.push_back((steps[begin]->step + steps[end - 1]->step) / 2);
    for (std::size_t part = 0; part < num_parts; ++part)
      for (std::size_t i = begin; i < end; ++i)
        layers[part].values[column] +=
            (*steps[i]->part_seconds)[part] / static_cast<double>(end - begin);
  }
  return layers;
}

}  // namespace

std::string part_figures(const std::vector<RunData>& runs) {
  std::string out;
  if (runs.size() == 1) {
    std::vector<double> x;
    const std::vector<Layer> layers = parts_by_step(runs.front(), 200, x);
    out += stacked_areas(
        {.id = "parts-by-step",
         .caption = "A step by part",
         .note = "Seconds of rank 0. Waiting for other ranks counts to the part that waits.",
         .x = {.label = "step"},
         .y = {.label = "seconds", .from_zero = true}},
        x, layers, no_parts);
  }
  std::vector<std::string> names;
  std::vector<Layer> layers;
  for (std::size_t part = 0; part < num_parts; ++part)
    layers.push_back({std::string(name_of(static_cast<Part>(part))), {}});
  constexpr std::size_t most_bars = 40;
  for (const RunData& run : runs) {
    if (names.size() == most_bars) break;
    std::array<std::vector<double>, num_parts> seconds;
    for (const StepData& step : run.steps)
      if (step.part_seconds)
        for (std::size_t part = 0; part < num_parts; ++part)
          seconds[part].push_back((*step.part_seconds)[part]);
    if (seconds[0].empty()) continue;
    names.push_back(run.name);
    for (std::size_t part = 0; part < num_parts; ++part)
      layers[part].values.push_back(median_of(seconds[part]));
  }
  std::string note = "Medians of steps, of rank 0.";
  if (runs.size() > most_bars) note += fmt::format(" The first {} runs.", most_bars);
  out += stacked_bars({.id = "parts",
                       .caption = "The usual step by part",
                       .note = note,
                       .x = {.label = "seconds"},
                       .y = {}},
                      names, layers, no_parts);
  return out;
}

std::string memory_figures(const std::vector<RunData>& runs) {
  const RunData* first = nullptr;
  for (const RunData& run : runs)
    if (first == nullptr && run.record && !run.record->memory_by_purpose.empty()) first = &run;
  const Chart chart{.id = "memory",
                    .caption = "Planned memory of the fullest rank, by purpose",
                    .note = "With balanced routing. The table has what was measured.",
                    .x = {.label = "MiB"},
                    .y = {}};
  constexpr std::size_t most_bars = 40;
  std::vector<std::string> names;
  std::vector<Layer> layers;
  if (first != nullptr)
    for (const auto& [purpose, bytes] : first->record->memory_by_purpose)
      layers.push_back({purpose, {}});
  for (const RunData& run : runs) {
    if (!run.record || run.record->memory_by_purpose.empty() || names.size() == most_bars) continue;
    names.push_back(run.name);
    for (Layer& layer : layers) {
      double mib = 0;
      for (const auto& [purpose, bytes] : run.record->memory_by_purpose)
        if (purpose == layer.name) mib = bytes / (1 << 20);
      layer.values.push_back(mib);
    }
  }
  return stacked_bars(chart, names, layers,
                      "No run here has recorded its plan: record.json is missing.");
}

// Of runs with rows of layers: every expert in the last step that has them.
std::string expert_maps(const std::vector<RunData>& runs, std::size_t most_maps) {
  std::string out;
  std::size_t num_maps = 0;
  for (const RunData& run : runs) {
    if (run.layers.empty() || num_maps == most_maps) continue;
    HeatMap map{.values = {},
                .row_names = {},
                .x_first = 0,
                .x_last = static_cast<double>(run.layers.front().loads.size()) - 1,
                .least = 0};
    for (const LayerData& layer : run.layers) {
      map.row_names.push_back(fmt::format("{}", layer.layer));
      map.values.push_back(layer.loads);
    }
    ++num_maps;
    out +=
        heat_map({.id = fmt::format("expert-map-{}", num_maps),
                  .caption = "Load by layer and expert: " + run.name,
                  .note = fmt::format("Rows over the layer's mean, in step {}.", run.layers_step),
                  .x = {.label = "expert"},
                  .y = {.label = "layer"}},
                 map, "");
  }
  return out;
}

std::string load_figures(const std::vector<RunData>& runs, const Palette& palette) {
  std::string out = curves(runs, palette,
                           {.id = "load",
                            .caption = "Load of the fullest expert",
                            .note = "Of the worst layer; 1 is perfect balance.",
                            .x = {.label = "step"},
                            .y = {.label = "maximum over mean"}},
                           [](const StepData& s) { return s.load_max_over_mean; });
  out += curves(runs, palette,
                {.id = "dropped",
                 .caption = "Dropped choices",
                 .note = {},
                 .x = {.label = "step"},
                 .y = {.label = "share of all", .from_zero = true}},
                [](const StepData& s) { return s.dropped_fraction; });
  constexpr std::size_t most_maps = 4, num_columns = 120;
  out += expert_maps(runs, most_maps);
  std::size_t num_maps = 0;
  for (const RunData& run : runs) {
    std::vector<const StepData*> steps;
    for (const StepData& step : run.steps)
      if (!step.load_by_layer.empty()) steps.push_back(&step);
    if (steps.empty() || num_maps == most_maps) continue;
    HeatMap map{.values = {},
                .row_names = {},
                .x_first = steps.front()->step,
                .x_last = steps.back()->step,
                .least = 1};
    const std::size_t columns = std::min(num_columns, steps.size());
    for (std::size_t layer = 0; layer < steps.front()->load_by_layer.size(); ++layer) {
      map.row_names.push_back(std::to_string(layer));
      std::vector<double>& row = map.values.emplace_back();
      for (std::size_t column = 0; column < columns; ++column) {
        const std::size_t begin = steps.size() * column / columns;
        const std::size_t end = steps.size() * (column + 1) / columns;
        double sum = 0;
        for (std::size_t i = begin; i < end; ++i)
          sum += layer < steps[i]->load_by_layer.size() ? steps[i]->load_by_layer[layer] : unknown;
        row.push_back(sum / static_cast<double>(end - begin));
      }
    }
    ++num_maps;
    out += heat_map({.id = fmt::format("load-map-{}", num_maps),
                     .caption = "Load by layer and step: " + run.name,
                     .note = "Fullest expert over the mean.",
                     .x = {.label = "step"},
                     .y = {.label = "layer with experts"}},
                    map, "");
  }
  if (num_maps == 0)
    out += line_figure(
        {.id = "load-map-1", .caption = "Load by layer and step", .note = {}, .x = {}, .y = {}}, {},
        {}, "No run here has recorded it: load_by_layer is missing in metrics.jsonl.");
  return out;
}

std::string exchange_figures(const std::vector<RunData>& runs, const Palette& palette) {
  std::vector<Series> series;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    std::vector<Point> points;
    for (const ExchangeData& exchange : runs[i].exchanges)
      points.push_back({exchange.bytes, exchange.bytes / exchange.seconds / 1e9});
    if (!points.empty())
      series.push_back({palette.entries[i].name, thinned(points, points_of_run(runs)), Mark::dots,
                        palette.entries[i].color});
  }
  return line_figure(
      {.id = "exchange-bandwidth",
       .caption = "Exchanges between ranks, by size",
       .note = "Of the steps that profile.steps traced: bytes sent by a rank over the time from "
               "the exchange's begin to its end. Waiting for other ranks is in it.",
       .x = {.label = "bytes sent", .logarithmic = true},
       .y = {.label = "GB a second", .logarithmic = true}},
      series, {}, "No run here has a trace of exchanges; profile.steps records them.");
}

}  // namespace switchyard::report
