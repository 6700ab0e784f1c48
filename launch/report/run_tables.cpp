#include "launch/report/run_tables.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "launch/report/html.hpp"
#include "trainer/number_text.hpp"

namespace switchyard::report {
namespace {

// What is not known sorts before all that is.
Cell figure_cell(double value, std::string shown) {
  return std::isfinite(value) ? Cell(shown, value) : Cell("–", -1e300);
}
Cell plain_cell(double value, int digits = 4) {
  return figure_cell(value, fmt::format("{:.{}g}", value, digits));
}
Cell loss_cell(double value) {
  return figure_cell(value, fmt::format("{:.4f}", value));
}
Cell count_cell(double value) {
  return figure_cell(value, format_count(value));
}
Cell bytes_cell(double value) {
  return figure_cell(value, format_bytes(value));
}
Cell percent_cell(double share) {
  return figure_cell(share, fmt::format("{:.2g} %", 100 * share));
}

double of_last_step(const RunData& run, double StepData::*field) {
  return run.steps.empty() ? unknown : run.steps.back().*field;
}

// The loss of a step is noisy: the mean of the last 5 %.
double train_loss(const RunData& run) {
  const std::size_t count = run.steps.empty() ? 0 : std::max<std::size_t>(run.steps.size() / 20, 1);
  double sum = 0;
  for (std::size_t i = run.steps.size() - count; i < run.steps.size(); ++i)
    sum += run.steps[i].cross_entropy;
  return count == 0 ? unknown : sum / static_cast<double>(count);
}

double share_of_peak(const RunData& run) {
  if (!run.record) return unknown;
  std::vector<double> values;
  for (const StepData& step : run.steps) values.push_back(step.model_flops_per_second);
  return median_of(values) / run.record->peak_flops_per_second;
}

Evaluation last_evaluation(const RunData& run) {
  return run.evaluations.empty() ? Evaluation{} : run.evaluations.back();
}

std::string layout_text(const RunData& run) {
  if (!run.record || !std::isfinite(run.record->data)) return "–";
  const RecordData& record = *run.record;
  return fmt::format("data {}{}, expert {}", record.data,
                     record.context > 1 ? fmt::format(", context {}", record.context) : "",
                     record.expert);
}

}  // namespace

std::string runs_table(const std::vector<RunData>& runs) {
  const bool with_accuracy = std::ranges::any_of(
      runs, [](const RunData& run) { return std::isfinite(last_evaluation(run).accuracy); });
  Table table{.heads = {"run", "ended", "ranks", "layout", "parameters", "active", "steps",
                        "tokens", "training loss", "validation loss", "tokens/s", "of peak",
                        "time of steps", "memory", "restarts"},
              .rows = {}};
  for (const RunData& run : runs) {
    const RecordData record = run.record.value_or(RecordData{});
    const double seconds = total_seconds(run);
    table.rows.push_back(
        {run.name, run.ending, plain_cell(record.num_ranks), layout_text(run),
         count_cell(record.num_parameters), count_cell(record.num_active_parameters),
         figure_cell(of_last_step(run, &StepData::step),
                     fmt::format("{:.0f}", of_last_step(run, &StepData::step))),
         count_cell(of_last_step(run, &StepData::num_tokens)), loss_cell(train_loss(run)),
         loss_cell(last_evaluation(run).loss), count_cell(usual_tokens_per_second(run)),
         percent_cell(share_of_peak(run)), figure_cell(seconds, format_duration(seconds)),
         bytes_cell(of_last_step(run, &StepData::memory_bytes)),
         figure_cell(static_cast<double>(run.restarts.size()),
                     std::to_string(run.restarts.size()))});
    if (with_accuracy) table.rows.back().push_back(percent_cell(last_evaluation(run).accuracy));
  }
  if (with_accuracy) table.heads.push_back("right (validation)");
  return table_html(table) +
         paragraph(
             "Training loss: the mean cross-entropy of the last 5 % of the steps, in nats a token. "
             "Tokens/s and the share of the peak (of dense products, measured as the run started): "
             "medians of steps. Memory: the peak of the fullest rank.") +
         (with_accuracy ? paragraph("Right: the share of the targets of the last evaluation that "
                                    "were the most probable token.")
                        : "");
}

std::string repeat_text(const std::vector<RunData>& runs) {
  std::string out;
  for (const RunData& run : runs) {
    std::string text;
    if (run.record) {
      const RecordData& record = *run.record;
      text = fmt::format("cd {}\n{}\n\n{}\non {}; {} threads a rank; {}; seed {}; started {}\n",
                         record.directory, record.command, record.version, record.hosts,
                         record.num_threads, record.device, run.value_of("run.seed"), record.time);
    } else {
      text = "The command is not recorded; the configuration below is what ran.\n";
    }
    out += fmt::format("<h3>{}</h3>\n<pre>{}</pre>\n", escape(run.name), escape(text));
    out += run.config_text.empty() ? paragraph("There is no configuration in its folder.")
                                   : folded_text("the whole configuration", run.config_text);
  }
  return out;
}

std::string differences_table(const std::vector<RunData>& runs) {
  if (runs.size() < 2) return {};
  std::vector<std::string> keys;  // of all runs, in the order of the document of keys
  std::map<std::string, std::map<std::size_t, std::string>> values;
  for (std::size_t i = 0; i < runs.size(); ++i)
    for (const auto& [key, value] : runs[i].config) {
      if (!values.contains(key)) keys.push_back(key);
      values[key][i] = value;
    }
  Table table{.heads = {"run"}, .rows = {}};
  for (const RunData& run : runs) table.rows.push_back({run.name});
  for (const std::string& key : keys) {
    const auto& of_key = values[key];
    const bool differs =
        of_key.size() != runs.size() || std::ranges::any_of(of_key, [&](const auto& entry) {
          return entry.second != of_key.begin()->second;
        });
    if (!differs || key == "run.output") continue;
    table.heads.push_back(key);
    for (std::size_t i = 0; i < runs.size(); ++i) {
      const auto found = of_key.find(i);
      table.rows[i].emplace_back(found == of_key.end() ? "–" : found->second);
    }
  }
  if (table.heads.size() == 1)
    return paragraph("The configurations of these runs are the same but for their folders.");
  return table_html(table);
}

std::string memory_table(const std::vector<RunData>& runs) {
  Table table{.heads = {"run", "measured", "planned, balanced", "most rows received",
                        "planned for these rows", "difference"},
              .rows = {}};
  for (const RunData& run : runs) {
    const RecordData record = run.record.value_or(RecordData{});
    const double measured = of_last_step(run, &StepData::memory_bytes);
    const double rows = of_last_step(run, &StepData::max_rows);
    // Without experts there are no rows, and the balanced plan is the whole of it.
    const double planned = rows == 0 ? record.planned_memory : record.planned_memory_at_rows;
    table.rows.push_back(
        {run.name, bytes_cell(measured), bytes_cell(record.planned_memory), plain_cell(rows, 10),
         bytes_cell(planned),
         figure_cell(measured - planned, fmt::format("{:.0f} B", measured - planned))});
  }
  return table_html(table) + paragraph(
                                 "Of the fullest rank. The plan for the rows that were received is "
                                 "made as the run ends; "
                                 "one that is under way or was killed has none.");
}

std::string parts_table(const RunData& run) {
  Table table{.heads = {"part", "seconds a step", "share", "FLOPs a step", "FLOP/s a rank",
                        "bytes sent a step"},
              .rows = {}};
  std::array<std::vector<double>, num_parts> seconds;
  for (const StepData& step : run.steps)
    if (step.part_seconds)
      for (std::size_t part = 0; part < num_parts; ++part)
        seconds[part].push_back((*step.part_seconds)[part]);
  if (seconds[0].empty()) return {};
  double sum = 0;
  for (const auto& of_part : seconds) sum += median_of(of_part);
  const RecordData record = run.record.value_or(RecordData{});
  for (std::size_t part = 0; part < num_parts; ++part) {
    const double usual = median_of(seconds[part]);
    const double flops = record.part_flops[part];
    if (usual == 0 && flops == 0) continue;
    table.rows.push_back({std::string(name_of(static_cast<Part>(part))), plain_cell(usual),
                          percent_cell(usual / sum), count_cell(flops > 0 ? flops : unknown),
                          count_cell(flops > 0 ? flops / record.num_ranks / usual : unknown),
                          bytes_cell(record.part_wire_bytes[part])});
  }
  return table_html(table) + paragraph(
                                 "Seconds: medians of rank 0. FLOPs and bytes: what the plan "
                                 "counts, of all ranks. FLOP/s: "
                                 "the mean rank's FLOPs over those seconds.");
}

std::string prediction_table(const std::vector<RunData>& runs) {
  constexpr double most_apart = 0.15;
  Table table{.heads = {"run", "part", "foretold, s", "measured, s", "measured / foretold"},
              .rows = {}};
  std::string words;
  for (const RunData& run : runs) {
    if (!run.record) continue;
    const PredictedData& predicted = run.record->predicted;
    if (predicted.profile.empty()) {
      if (!predicted.why_not.empty())
        words += paragraph(
            fmt::format("{}: no seconds were foretold: {}.", run.name, predicted.why_not));
      continue;
    }
    const auto add = [&](const std::string& part, double foretold, double measured) {
      table.rows.push_back({run.name, part, plain_cell(foretold), plain_cell(measured),
                            plain_cell(foretold > 0 ? measured / foretold : unknown, 3)});
    };
    for (std::size_t part = 0; part < num_parts; ++part)
      if (predicted.parts[part] > 0 || predicted.measured_parts[part] > 0)
        add(std::string(name_of(static_cast<Part>(part))), predicted.parts[part],
            predicted.measured_parts[part]);
    add("step", predicted.step, predicted.measured_step);
    const double ratio = predicted.measured_step / predicted.step;
    if (std::abs(ratio - 1) > most_apart)
      words += paragraph(fmt::format(
          "Warning: the steps of {} took {:.2f} times what the plan foretold. Other work on the "
          "machine, a profile of another machine, or a part that is priced badly: see the parts.",
          run.name, ratio));
  }
  if (table.rows.empty()) return {};  // without a profile there is nothing to compare
  return words + table_html(table) +
         paragraph(
             "Foretold: the record of the plan, priced by the machine's profile, with the "
             "load of the experts that was measured. Measured: medians of rank 0's steps.");
}

std::string restarts_table(const std::vector<RunData>& runs) {
  Table table{.heads = {"run", "restart", "from step", "lost steps", "lost time",
                        "why the start before ended"},
              .rows = {}};
  Table totals{.heads = {"run", "restarts", "lost steps", "lost time", "time of steps",
                         "share of time that counts"},
               .rows = {}};
  for (const RunData& run : runs) {
    double steps = 0, seconds = 0;
    for (std::size_t i = 0; i < run.restarts.size(); ++i) {
      const Restart& restart = run.restarts[i];
      table.rows.push_back(
          {run.name, plain_cell(static_cast<double>(i + 1)), plain_cell(restart.step, 10),
           plain_cell(restart.lost_steps, 10),
           figure_cell(restart.lost_seconds, format_duration(restart.lost_seconds)),
           restart.reason});
      if (std::isfinite(restart.lost_steps)) steps += restart.lost_steps;
      if (std::isfinite(restart.lost_seconds)) seconds += restart.lost_seconds;
    }
    if (run.restarts.empty()) continue;
    const double useful = total_seconds(run);
    totals.rows.push_back({run.name, plain_cell(static_cast<double>(run.restarts.size())),
                           plain_cell(steps, 10), figure_cell(seconds, format_duration(seconds)),
                           figure_cell(useful, format_duration(useful)),
                           percent_cell(useful / (useful + seconds))});
  }
  if (table.rows.empty()) return paragraph("No run here was restarted.");
  return table_html(totals) + table_html(table);
}

std::string missing_text(const std::vector<RunData>& runs) {
  std::string items;
  for (const RunData& run : runs)
    for (const std::string& sentence : run.missing)
      items += fmt::format("<li>{}: {}</li>\n", escape(run.name), escape(sentence));
  return items.empty() ? items : "<ul>" + items + "</ul>\n";
}

}  // namespace switchyard::report
