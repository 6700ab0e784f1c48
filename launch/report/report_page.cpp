#include "launch/report/report_page.hpp"

#include <fmt/core.h>

#include "launch/report/html.hpp"
#include "launch/report/run_figures.hpp"
#include "launch/report/run_tables.hpp"
#include "launch/report/study_figures.hpp"

namespace switchyard::report {
namespace {

std::string figures(const std::string& inside) {
  return "<div class=\"figures\">\n" + inside + "</div>\n";
}

// Sections in order, each with a link at the head of the page.
class Sections {
 public:
  void add(const std::string& id, const std::string& heading, const std::string& inside) {
    if (inside.empty()) return;
    links_ += fmt::format("<a href=\"#section-{}\">{}</a>\n", id, escape(heading));
    text_ += section("section-" + id, heading, inside);  // figures have ids, too
  }
  std::string page(const std::string& title, const std::string& command) const {
    return document(title, fmt::format("<h1>{}</h1>\n<p class=\"dim\">Made by <code>{}</code></p>\n"
                                       "<nav>{}</nav>\n{}",
                                       escape(title), escape(command), links_, text_));
  }

 private:
  std::string links_;
  std::string text_;
};

}  // namespace

std::string runs_page(const std::vector<RunData>& runs, const std::string& command) {
  const Palette palette = palette_of(runs, {});
  Sections sections;
  sections.add("runs", "What was run", runs_table(runs));
  sections.add("missing", "What is missing", missing_text(runs));
  sections.add("differences", "Differences of configurations", differences_table(runs));
  sections.add("curves", "Course of the training", figures(curve_figures(runs, palette)));
  sections.add("time", "Where the time goes",
               figures(part_figures(runs) + exchange_figures(runs, palette)) +
                   (runs.size() == 1 ? parts_table(runs.front()) : std::string()));
  if (runs.size() > 1) sections.add("scaling", "Scaling", figures(scaling_figures(runs)));
  sections.add("experts", "Load of the experts", figures(load_figures(runs, palette)));
  sections.add("memory", "Memory beside the plan",
               memory_table(runs) + figures(memory_figures(runs)));
  if (const std::string predicted = prediction_table(runs); !predicted.empty())
    sections.add("prediction", "Seconds beside the plan", predicted);
  sections.add("restarts", "Restarts and lost time", restarts_table(runs));
  sections.add("repeat", "How to repeat it", repeat_text(runs));
  return sections.page(
      runs.size() == 1 ? "Run " + runs.front().name : fmt::format("{} runs", runs.size()), command);
}

std::string study_page(const StudyData& study, const std::string& command) {
  const Palette palette = palette_of(study.points, study.sets);
  Sections sections;
  sections.add("runs", "What was run", runs_table(study.points));
  sections.add("laws", "Losses and laws", laws_section(study));
  sections.add("repeats", "Repeats", repeats_section(study));
  sections.add("scaling", "Scaling", figures(scaling_figures(study.points)));
  sections.add("curves", "Course of the training", figures(curve_figures(study.points, palette)));
  sections.add("experts", "Load of the experts", figures(load_figures(study.points, palette)));
  sections.add("memory", "Memory beside the plan", memory_table(study.points));
  sections.add("restarts", "Restarts and lost time", restarts_table(study.points));
  sections.add("differences", "Differences of configurations", differences_table(study.points));
  sections.add("repeat", "How to repeat it",
               fmt::format("<pre>{}</pre>\n", escape(study.command)) +
                   folded_text("the study", study.text) +
                   folded_text("the configuration that its points begin with", study.config_text));
  return sections.page("Study " + study.name, command);
}

}  // namespace switchyard::report
