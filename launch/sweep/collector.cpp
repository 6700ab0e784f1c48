#include "launch/sweep/collector.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <thread>

#include "data/files/atomic_file.hpp"
#include "data/files/file_lock.hpp"
#include "launch/config/list_value.hpp"
#include "launch/config/value.hpp"
#include "launch/report/run_data.hpp"
#include "launch/sweep/power.hpp"
#include "tensor/error.hpp"

namespace switchyard {
namespace {

namespace fs = std::filesystem;
using report::RunData;
using report::StepData;

constexpr double unknown = std::numeric_limits<double>::quiet_NaN();
constexpr std::size_t most_curve_rows = 1000;  // of a point
constexpr double final_share = 0.05;           // of the steps, whose mean is the training loss

std::int64_t whole(double value) {
  return std::isfinite(value) ? static_cast<std::int64_t>(value) : -1;
}

// What the run has left; empty if it has not begun.
RunData run_in(const std::string& folder) {
  std::error_code error;
  if (!fs::exists(folder + "/metrics.jsonl", error)) return {};
  return report::read_run(folder);
}

// The last 5 % of the steps, at least one.
std::span<const StepData> last_steps(const RunData& run) {
  const std::span<const StepData> steps(run.steps);
  const auto count = static_cast<std::size_t>(
      std::max(1.0, std::floor(final_share * static_cast<double>(steps.size()))));
  return steps.last(std::min(count, steps.size()));
}

double mean_of(std::span<const StepData> steps, double StepData::*figure) {
  double sum = 0;
  for (const StepData& step : steps) sum += step.*figure;
  return steps.empty() ? unknown : sum / static_cast<double>(steps.size());
}

double median_seconds(const RunData& run) {
  std::vector<double> seconds;
  for (const StepData& step : run.steps) seconds.push_back(step.seconds);
  return report::median_of(std::move(seconds));
}

void set_planned(Table& table, const StudyPoint& point) {
  const PointPlan& plan = point.plan;
  const ExpertsConfig& experts = point.config.experts;
  bool has_experts = false;
  for (std::int64_t layer = 0; layer < point.config.model.num_layers; ++layer)
    has_experts = has_experts || experts.layer_has_experts(layer);
  table.set("num_parameters", plan.num_parameters);
  table.set("num_active_parameters", plan.num_active_parameters);
  table.set("num_embedding_parameters", plan.num_embedding_parameters);
  table.set("num_experts", has_experts ? experts.num_experts : std::int64_t{1});
  table.set("top_k", has_experts ? experts.top_k : std::int64_t{1});
  table.set("granularity", has_experts
                               ? static_cast<double>(point.config.model.dense_intermediate) /
                                     static_cast<double>(experts.intermediate)
                               : 1.0);
  table.set("sparsity", 1 - static_cast<double>(plan.num_active_parameters) /
                                static_cast<double>(plan.num_parameters));
  table.set("tokens_per_step", plan.tokens_per_step);
  table.set("planned_steps", point.num_steps());
  table.set("planned_tokens", static_cast<std::int64_t>(point.num_tokens()));
  table.set("flops_per_token", plan.flops_per_token);
  table.set("planned_flops", point.flops());
  for (std::size_t part = 0; part < num_parts; ++part)
    table.set(fmt::format("planned_flops_{}", name_of(static_cast<Part>(part))),
              plan.part_flops[part]);
  table.set("planned_memory_bytes", plan.memory_bytes);
  table.set("planned_wire_bytes", plan.wire_bytes);
  table.set("planned_seconds", plan.step_seconds > 0
                                   ? plan.step_seconds * static_cast<double>(point.num_steps())
                                   : unknown);
}

void set_identity(Table& table, const StudyPoint& point, const PointState& state) {
  table.set("point", point.name);
  table.set("set", point.set);
  table.set("folder", "points/" + point.name);
  table.set("configuration", point.configuration);
  table.set("repeat", point.repeat);
  table.set("status", std::string(name_of(state.status)));
  table.set("reason", state.reason);
  table.set("exit_code", state.exit_code);
  table.set("config_hash", point.config_hash);
  table.set("seed", point.config.run.seed);
  table.set("parent", point.parent);
  table.set("parent_step", point.parent.empty() ? std::int64_t{-1} : point.parent_step);
  table.set("num_ranks", point.ranks);
  table.set("layout_data", point.plan.parallel.data);
  table.set("layout_context", point.plan.parallel.context);
  table.set("layout_expert", point.plan.parallel.expert);
}

void set_record(Table& table, const RunData& run, const PointState& state) {
  const report::RecordData record = run.record.value_or(report::RecordData{});
  table.set("code_version", record.version.substr(0, record.version.find('\n')));
  table.set("host", record.hosts);
  table.set("device", record.device);
  table.set("threads", whole(record.num_threads));
  table.set("started", record.time);
  table.set("ended", state.ended);
  // The run's own plan knows its threads; ours, those that this machine would take.
  if (std::isfinite(record.planned_memory))
    table.set("planned_memory_bytes", whole(record.planned_memory));
}

void set_measured(Table& table, const StudyPoint& point, const RunData& run) {
  const std::span<const StepData> last = last_steps(run);
  const bool has_steps = !run.steps.empty();
  const StepData end = has_steps ? run.steps.back() : StepData{};
  const double train_loss = mean_of(last, &StepData::cross_entropy);
  const bool has_final_validation =
      has_steps && !run.evaluations.empty() && run.evaluations.back().step == end.step;
  table.set("num_steps", has_steps ? whole(end.step) : std::int64_t{0});
  table.set("num_tokens", has_steps ? whole(end.num_tokens) : std::int64_t{0});
  table.set("flops", has_steps ? point.plan.flops_per_token * end.num_tokens : 0.0);
  const double validation = run.evaluations.empty() ? unknown : run.evaluations.back().loss;
  table.set("loss", has_final_validation ? validation : train_loss);
  table.set("loss_kind", std::string(!has_steps             ? ""
                                     : has_final_validation ? "validation"
                                                            : "train"));
  table.set("validation_loss", validation);
  table.set("validation_accuracy",
            run.evaluations.empty() ? unknown : run.evaluations.back().accuracy);
  table.set("train_loss", train_loss);
  table.set("seconds", has_steps ? report::total_seconds(run) : unknown);
  table.set("step_seconds", has_steps ? median_seconds(run) : unknown);
  table.set("tokens_per_second", has_steps ? report::usual_tokens_per_second(run) : unknown);
  table.set("memory_bytes", whole(end.memory_bytes));
  table.set("max_rows", whole(end.max_rows));
  table.set("load_max_over_mean", mean_of(last, &StepData::load_max_over_mean));
  table.set("dropped_fraction", mean_of(last, &StepData::dropped_fraction));
  double lost_steps = 0, lost_seconds = 0;
  for (const report::Restart& restart : run.restarts) {
    lost_steps += restart.lost_steps;
    lost_seconds += restart.lost_seconds;
  }
  table.set("restarts", static_cast<std::int64_t>(run.restarts.size()));
  table.set("lost_steps", whole(lost_steps));
  table.set("lost_seconds", lost_seconds);
}

void set_configuration(Table& table, const Config& given) {
  Config config = given;
  for (const Key& key : schema()) {
    const std::string name = "config." + key.path();
    if (const auto* integer = std::get_if<Access<std::int64_t>>(&key.field))
      table.set(name, (*integer)(config));
    else if (const auto* number = std::get_if<Access<double>>(&key.field))
      table.set(name, (*number)(config));
    else if (const auto* flag = std::get_if<Access<bool>>(&key.field))
      table.set(name, std::int64_t{(*flag)(config) ? 1 : 0});
    else
      table.set(name, plain_value(config, key));
  }
}

// The mean of neighbouring steps, with the last one's step and tokens.
void add_curve_row(Table& curves, std::int64_t point, std::span<const StepData> steps) {
  curves.add_row();
  curves.set("point", point);
  curves.set("step", whole(steps.back().step));
  curves.set("num_tokens", steps.back().num_tokens);
  const auto add = [&](const char* name, double StepData::*figure) {
    curves.set(name, mean_of(steps, figure));
  };
  add("cross_entropy", &StepData::cross_entropy);
  add("grad_norm", &StepData::grad_norm);
  add("learning_rate", &StepData::learning_rate);
  add("step_seconds", &StepData::seconds);
  add("tokens_per_second", &StepData::tokens_per_second);
  add("model_flops_per_second", &StepData::model_flops_per_second);
  add("memory_bytes", &StepData::memory_bytes);
  add("max_rows", &StepData::max_rows);
  add("load_max_over_mean", &StepData::load_max_over_mean);
  add("dropped_fraction", &StepData::dropped_fraction);
  for (std::size_t part = 0; part < num_parts; ++part) {
    double sum = 0;
    for (const StepData& step : steps)
      sum += step.part_seconds ? (*step.part_seconds)[part] : unknown;
    curves.set(fmt::format("seconds_{}", name_of(static_cast<Part>(part))),
               sum / static_cast<double>(steps.size()));
  }
}

void add_curve(StudyTables& tables, std::int64_t point, const RunData& run) {
  const std::span<const StepData> steps(run.steps);
  const std::size_t num_rows = std::min(steps.size(), most_curve_rows);
  for (std::size_t row = 0; row < num_rows; ++row) {
    const std::size_t begin = row * steps.size() / num_rows;
    const std::size_t end = (row + 1) * steps.size() / num_rows;
    add_curve_row(tables.curves, point, steps.subspan(begin, end - begin));
  }
  for (const report::Evaluation& evaluation : run.evaluations) {
    tables.validation.add_row();
    tables.validation.set("point", point);
    tables.validation.set("step", whole(evaluation.step));
    tables.validation.set("validation_loss", evaluation.loss);
    tables.validation.set("validation_accuracy", evaluation.accuracy);
  }
}

void add_repeats(StudyTables& tables) {
  const std::vector<std::string> configurations = tables.points.texts("configuration");
  const std::vector<std::string> sets = tables.points.texts("set");
  const std::vector<std::string> status = tables.points.texts("status");
  const std::vector<double> loss = tables.points.numbers("loss");
  std::vector<std::string> seen;
  for (std::size_t first = 0; first < configurations.size(); ++first) {
    if (std::count(seen.begin(), seen.end(), configurations[first]) > 0) continue;
    seen.push_back(configurations[first]);
    std::vector<double> losses;
    for (std::size_t i = first; i < configurations.size(); ++i)
      if (configurations[i] == configurations[first] && status[i] == "done")
        losses.push_back(loss[i]);
    const Spread spread = spread_of(losses);
    Table& repeats = tables.repeats;
    repeats.add_row();
    repeats.set("configuration", configurations[first]);
    repeats.set("set", sets[first]);
    repeats.set("first_point", static_cast<std::int64_t>(first));
    repeats.set("num_repeats", static_cast<std::int64_t>(losses.size()));
    repeats.set("median_loss", spread.median);
    repeats.set("least_loss", spread.least);
    repeats.set("largest_loss", spread.largest);
    repeats.set("std_loss", spread.standard_deviation);
  }
}

void write_hdf5(const StudyTables& tables, const std::string& path) {
  OutputFile output(path);
  hdf5::File file = hdf5::File::create(output.temporary_path());
  file.set_attribute("/", "format", "switchyard study");
  file.set_attribute("/", "format_version", std::int64_t{1});
  write_table(file, "study", tables.study);
  write_table(file, "points", tables.points);
  write_table(file, "curves", tables.curves);
  write_table(file, "validation", tables.validation);
  write_table(file, "repeats", tables.repeats);
  file.close_synced();
  output.commit();
}

}  // namespace

StudyTables tables_of(const Study& study, const std::string& command) {
  StudyTables tables;
  std::int64_t num_done = 0;
  for (std::size_t i = 0; i < study.points.size(); ++i) {
    const StudyPoint& point = study.points[i];
    const std::string folder = study.folder_of(point);
    const PointState state = state_of(folder, point.num_steps());
    const RunData run = run_in(folder);
    if (state.status == PointStatus::done) ++num_done;
    tables.points.add_row();
    set_identity(tables.points, point, state);
    set_planned(tables.points, point);
    set_record(tables.points, run, state);
    set_measured(tables.points, point, run);
    set_configuration(tables.points, point.config);
    add_curve(tables, static_cast<std::int64_t>(i), run);
  }
  if (!study.points.empty()) add_repeats(tables);
  const Noise noise = noise_for(study.file);
  tables.study.add_row();
  tables.study.set("name", study.file.name);
  tables.study.set("command", command);
  tables.study.set("effect", study.file.effect.value_or(unknown));
  tables.study.set("noise", noise.value);
  tables.study.set("noise_source", noise.source);
  tables.study.set("num_points", static_cast<std::int64_t>(study.points.size()));
  tables.study.set("num_done", num_done);
  tables.study.set("text", study.file.text);
  tables.study.set("config_text", study.config_text);
  return tables;
}

CollectedFiles collect(const Study& study, const std::string& command) {
  FileLock lock(study.file.output + "/collect.lock");
  while (lock.try_take()) std::this_thread::sleep_for(std::chrono::milliseconds(100));
  CollectedFiles files{.hdf5 = study.file.output + "/study.h5",
                       .csv = study.file.output + "/study.csv",
                       .tables = tables_of(study, command)};
  write_hdf5(files.tables, files.hdf5);
  write_file_atomically(files.csv, csv_of(files.tables.points));
  return files;
}

}  // namespace switchyard
