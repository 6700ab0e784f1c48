// switchyard report: runs, or a study, as one page of figures and tables.
#include <fmt/core.h>

#include <filesystem>
#include <iostream>

#include "data/files/atomic_file.hpp"
#include "data/files/shell_quote.hpp"
#include "launch/commands/commands.hpp"
#include "launch/options.hpp"
#include "launch/report/report_page.hpp"

namespace switchyard {

int run_report(const CommandContext& context) {
  std::string output = "report.html";
  std::vector<std::string> inputs;
  Options options(
      "report", "RUN... | STUDY.h5 [--output FILE.html]",
      "Writes one page with what was run, how to repeat it, and figures: loss, speed, "
      "the step by part, memory beside the plan, load, restarts. Several runs are laid "
      "over each other. Of a study (docs/studies.md) also scaling, and the laws that fit it. "
      "The page stands alone: nothing is loaded from anywhere.");
  options
      .add_path("output", "FILE.html", output,
                "the page (default report.html); replaced if it exists")
      .arguments("RUN", inputs, 1);
  if (!options.parse(context.arguments)) return 0;

  const std::string command = "switchyard report " + quote_all_for_shell(context.arguments);
  std::string page;
  std::string what;
  std::error_code error;
  if (std::filesystem::is_regular_file(inputs.front(), error)) {
    if (inputs.size() > 1)
      throw UsageError("report", "a study is shown alone: give one file, or folders of runs");
    const report::StudyData study = report::read_study(inputs.front());
    page = report::study_page(study, command);
    what = fmt::format("a study of {} points", study.points.size());
  } else {
    std::vector<report::RunData> runs;
    for (const std::string& input : inputs) {
      runs.push_back(report::read_run(input));
      report::add_exchanges(runs.back());
    }
    page = report::runs_page(runs, command);
    what = fmt::format("{} {}", runs.size(), runs.size() == 1 ? "run" : "runs");
  }
  write_file_atomically(output, page);
  std::cout << fmt::format("{}: {}, {:.1f} MB\n", output, what,
                           static_cast<double>(page.size()) / 1e6);
  return 0;
}

}  // namespace switchyard
