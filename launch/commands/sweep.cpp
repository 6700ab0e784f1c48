// switchyard sweep: the points of a study, planned, run and collected.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <map>

#include "data/files/shell_quote.hpp"
#include "launch/commands/commands.hpp"
#include "launch/commands/run_data.hpp"
#include "launch/commands/table_text.hpp"
#include "launch/options.hpp"
#include "launch/sweep/collector.hpp"
#include "launch/sweep/local_sweep.hpp"
#include "launch/sweep/power.hpp"
#include "launch/sweep/slurm_sweep.hpp"
#include "launch/sweep/study_folder.hpp"
#include "trainer/memory_limit.hpp"
#include "trainer/number_text.hpp"
#include "trainer/watch/stop_signal.hpp"

namespace switchyard {
namespace {

using Rows = std::vector<std::vector<std::string>>;

// The number of points of each status, as "3 done, 2 waiting".
std::string counts_text(const Study& study) {
  std::map<PointStatus, std::int64_t> counts;
  for (const StudyPoint& point : study.points)
    ++counts[state_of(study.folder_of(point), point.num_steps()).status];
  std::string text;
  for (const auto& [status, count] : counts)
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", count, name_of(status));
  return text;
}

// One row for each configuration, by its first repeat.
std::string points_text(const Study& study) {
  std::map<std::string, std::int64_t> repeats;
  for (const StudyPoint& point : study.points) ++repeats[point.configuration];
  Rows rows = {{"point", "repeats", "ranks", "parameters", "active", "steps", "tokens", "FLOP",
                "memory of a rank"}};
  for (const StudyPoint& point : study.points) {
    std::int64_t& count = repeats[point.configuration];
    if (count == 0) continue;
    rows.push_back({point.name, std::to_string(count), std::to_string(point.ranks),
                    format_count(static_cast<double>(point.plan.num_parameters)),
                    format_count(static_cast<double>(point.plan.num_active_parameters)),
                    point.parent.empty()
                        ? std::to_string(point.num_steps())
                        : fmt::format("{} from {}", point.num_steps(), point.parent_step),
                    format_count(point.num_tokens()), fmt::format("{:.3g}", point.flops()),
                    format_bytes(static_cast<double>(point.plan.memory_bytes))});
    count = 0;
  }
  return table_text(rows);
}

std::string cost_text(const Study& study) {
  double flops = 0, open_flops = 0, seconds = 0, open_seconds = 0;
  bool all_priced = true;
  std::int64_t num_open = 0;
  for (const StudyPoint& point : study.points) {
    flops += point.own_flops();
    seconds += point.own_seconds();
    all_priced = all_priced && point.plan.step_seconds > 0;
    if (state_of(study.folder_of(point), point.num_steps()).status == PointStatus::done) continue;
    open_flops += point.own_flops();
    open_seconds += point.own_seconds();
    ++num_open;
  }
  constexpr double minute = 60;
  return fmt::format(
      "{} points, {:.3g} FLOPs; still to run: {} points, {:.3g} FLOPs at most\n{}\n",
      study.points.size(), flops, num_open, open_flops,
      all_priced
          ? fmt::format("Foretold: {:.3g} minutes of steps one point after another; still to run: "
                        "{:.3g}",
                        seconds / minute, open_seconds / minute)
          : fmt::format("No seconds: {}", study.why_no_seconds));
}

// Points that this machine cannot hold, for --local.
std::string memory_text(const Study& study) {
  std::string text;
  for (const StudyPoint& point : study.points) {
    const MemoryLimit limit = available_memory().for_each_of(static_cast<int>(point.ranks));
    if (limit.total > 0 && point.plan.memory_bytes > limit.available)
      text += fmt::format("warning: {} needs {} a rank, and {} leaves {} here\n", point.name,
                          format_bytes(static_cast<double>(point.plan.memory_bytes)), limit.name,
                          format_bytes(static_cast<double>(limit.available)));
  }
  return text;
}

void print_plan(const Study& study) {
  for (const std::string& note : study.notes) std::cout << "note: " << note << '\n';
  std::cout << fmt::format("study {}: {}\n", study.file.name, counts_text(study))
            << points_text(study) << cost_text(study) << memory_text(study);
  const std::string power = power_text(study.file);
  if (!power.empty()) std::cout << power << '\n';
  std::cout << std::flush;
}

std::string loss_text(double value) {
  return std::isnan(value) ? "-" : fmt::format("{:.4f}", value);
}

void print_collected(const Study& study, const CollectedFiles& files) {
  const Table& repeats = files.tables.repeats;
  Rows rows = {{"configuration", "repeats done", "median loss", "least", "largest", "std"}};
  for (std::size_t i = 0; i < repeats.num_rows(); ++i) {
    const auto first = static_cast<std::size_t>(repeats.numbers("first_point")[i]);
    rows.push_back(
        {study.points[first].name, repeats.texts("num_repeats")[i],
         loss_text(repeats.numbers("median_loss")[i]), loss_text(repeats.numbers("least_loss")[i]),
         loss_text(repeats.numbers("largest_loss")[i]), loss_text(repeats.numbers("std_loss")[i])});
  }
  std::cout << table_text(rows)
            << fmt::format("{}\ncollected in {} and {}\n", counts_text(study), files.hdf5,
                           files.csv);
  for (const StudyPoint& point : study.points) {
    const PointState state = state_of(study.folder_of(point), point.num_steps());
    if (state.status == PointStatus::failed)
      std::cout << fmt::format("{} failed ({}): {}; --retry starts it again\n", point.name,
                               state.exit_code, state.reason);
  }
  std::cout << std::flush;
}

struct Wanted {
  bool local = false;
  bool slurm = false;
  bool dry_run = false;
  bool collect = false;
  bool retry = false;
};

int sweep(const Study& study, const Wanted& wanted, const std::string& command) {
  claim_study_folder(study.file);
  if (wanted.slurm) {
    const std::int64_t num_points = submit_to_slurm(study, wanted.retry, std::cout);
    std::cout << fmt::format("{} points submitted\n", num_points) << std::flush;
    return 0;
  }
  SweepResult result;
  if (wanted.local) {
    StopSignal stop;
    result = run_locally(
        study, {.retry = wanted.retry, .is_stopped = [&stop] { return stop.requested(); }},
        std::cout);
  }
  print_collected(study, collect(study, command));
  if (result.was_stopped) {
    std::cout << "stopped; the same command goes on\n" << std::flush;
    return static_cast<int>(ExitCode::stopped);
  }
  return result.num_failed > 0 ? static_cast<int>(ExitCode::internal) : 0;
}

}  // namespace

int run_sweep(const CommandContext& context) {
  Wanted wanted;
  std::vector<std::string> arguments;
  Options options(
      "sweep", "STUDY.yaml",
      "Plans, runs and collects the points of a study; docs/studies.md has its file. A "
      "point that has finished never runs again. Without a word of what to do it prints "
      "the plan.");
  options.add("local", wanted.local, "run the points here, one after another")
      .add("slurm", wanted.slurm, "submit them as arrays of jobs")
      .add("dry-run", wanted.dry_run, "print the plan: memory and work of every point")
      .add("collect", wanted.collect, "build study.h5 and study.csv anew from what is there")
      .add("retry", wanted.retry, "start points that failed again")
      .arguments("STUDY.yaml", arguments, 1, 1);
  if (!options.parse(context.arguments)) return 0;
  if (static_cast<int>(wanted.local) + static_cast<int>(wanted.slurm) +
          static_cast<int>(wanted.collect) >
      1)
    throw UsageError("sweep", "give one of --local, --slurm and --collect");
  const Study study = make_study(read_study(arguments.front()), vocab_size_of_data);
  if (!wanted.collect) print_plan(study);
  if (wanted.dry_run || !(wanted.local || wanted.slurm || wanted.collect)) {
    if (!wanted.dry_run) std::cout << "Nothing runs without --local or --slurm.\n" << std::flush;
    return 0;
  }
  const std::string way = wanted.slurm ? "--slurm" : "--local";
  return sweep(
      study, wanted,
      fmt::format("{} sweep {} {}", context.program, quote_for_shell(arguments.front()), way));
}

}  // namespace switchyard
