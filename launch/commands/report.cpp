// switchyard report: runs as one page of figures and tables.
#include <fmt/core.h>

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
  Options options("report", "RUN... [--output FILE.html]",
                  "Writes one page with what was run, how to repeat it, and figures: loss, speed, "
                  "the step by part, memory beside the plan, load, restarts. Several runs are laid "
                  "over each other. The page stands alone: nothing is loaded from anywhere.");
  options
      .add_path("output", "FILE.html", output,
                "the page (default report.html); replaced if it exists")
      .arguments("RUN", inputs, 1);
  if (!options.parse(context.arguments)) return 0;

  std::vector<report::RunData> runs;
  for (const std::string& input : inputs) runs.push_back(report::read_run(input));
  const std::string command = "switchyard report " + quote_all_for_shell(context.arguments);
  const std::string page = report::runs_page(runs, command);
  write_file_atomically(output, page);
  std::cout << fmt::format("{}: {} {}, {:.1f} MB\n", output, runs.size(),
                           runs.size() == 1 ? "run" : "runs",
                           static_cast<double>(page.size()) / 1e6);
  return 0;
}

}  // namespace switchyard
