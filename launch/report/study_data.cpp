#include "launch/report/study_data.hpp"

#include <fmt/core.h>

#include <cmath>

#include "launch/fit/points.hpp"
#include "launch/study/table.hpp"

namespace switchyard::report {
namespace {

using StudyTable = switchyard::Table;

// The columns of a table by name, each looked up once; unknown ones give unknown values.
class Columns {
 public:
  explicit Columns(const StudyTable& table) : table_(table) {}

  std::vector<double> numbers(std::string_view name) const {
    return table_.has(name) ? table_.numbers(name)
                            : std::vector<double>(table_.num_rows(), unknown);
  }
  std::vector<std::string> texts(std::string_view name) const {
    return table_.has(name) ? table_.texts(name) : std::vector<std::string>(table_.num_rows());
  }

 private:
  const StudyTable& table_;
};

StudyTable table_in(const hdf5::File& file, const std::string& group) {
  return file.kind(group) == hdf5::ObjectKind::group ? read_table(file, group) : StudyTable();
}

constexpr std::string_view config_prefix = "config.";

void take_configurations(StudyData& study) {
  for (const std::string& name : study.table.names()) {
    if (!name.starts_with(config_prefix)) continue;
    const std::vector<std::string> values = study.table.texts(name);
    for (std::size_t i = 0; i < study.points.size(); ++i)
      study.points[i].config.emplace_back(name.substr(config_prefix.size()), values[i]);
  }
}

void take_records(StudyData& study) {
  const Columns columns(study.table);
  struct Place {
    std::string_view column;
    double RecordData::*field;
  };
  constexpr Place places[] = {{"num_ranks", &RecordData::num_ranks},
                              {"threads", &RecordData::num_threads},
                              {"layout_data", &RecordData::data},
                              {"layout_context", &RecordData::context},
                              {"layout_expert", &RecordData::expert},
                              {"num_parameters", &RecordData::num_parameters},
                              {"num_active_parameters", &RecordData::num_active_parameters},
                              {"planned_memory_bytes", &RecordData::planned_memory}};
  for (RunData& point : study.points) point.record.emplace();
  for (const auto& [column, field] : places) {
    const std::vector<double> values = columns.numbers(column);
    for (std::size_t i = 0; i < study.points.size(); ++i)
      (*study.points[i].record).*field = values[i];
  }
  const std::vector<std::string> versions = columns.texts("code_version");
  const std::vector<std::string> hosts = columns.texts("host");
  for (std::size_t i = 0; i < study.points.size(); ++i) {
    study.points[i].record->version = versions[i];
    study.points[i].record->hosts = hosts[i];
  }
}

void take_restarts(StudyData& study) {
  const Columns columns(study.table);
  const std::vector<double> counts = columns.numbers("restarts");
  const std::vector<double> steps = columns.numbers("lost_steps");
  const std::vector<double> seconds = columns.numbers("lost_seconds");
  for (std::size_t i = 0; i < study.points.size(); ++i)
    if (counts[i] > 0)
      study.points[i].restarts.push_back(
          {.step = unknown,
           .lost_steps = steps[i],
           .lost_seconds = seconds[i],
           .reason = fmt::format("{:.0f} restarts, added up", counts[i])});
}

// The point of a row of another table; none: it names no point.
RunData* point_at(StudyData& study, double number) {
  return number >= 0 && number < static_cast<double>(study.points.size())
             ? &study.points[static_cast<std::size_t>(number)]
             : nullptr;
}

void take_curves(StudyData& study, const StudyTable& curves) {
  struct Place {
    std::string_view column;
    double StepData::*field;
  };
  constexpr Place places[] = {{"step", &StepData::step},
                              {"cross_entropy", &StepData::cross_entropy},
                              {"grad_norm", &StepData::grad_norm},
                              {"learning_rate", &StepData::learning_rate},
                              {"num_tokens", &StepData::num_tokens},
                              {"step_seconds", &StepData::seconds},
                              {"tokens_per_second", &StepData::tokens_per_second},
                              {"model_flops_per_second", &StepData::model_flops_per_second},
                              {"memory_bytes", &StepData::memory_bytes},
                              {"max_rows", &StepData::max_rows},
                              {"load_max_over_mean", &StepData::load_max_over_mean},
                              {"dropped_fraction", &StepData::dropped_fraction}};
  const Columns columns(curves);
  std::vector<std::vector<double>> values;
  for (const Place& place : places) values.push_back(columns.numbers(place.column));
  const std::vector<double> owners = columns.numbers("point");
  for (std::size_t row = 0; row < owners.size(); ++row) {
    RunData* point = point_at(study, owners[row]);
    if (point == nullptr) continue;
    StepData& step = point->steps.emplace_back();
    for (std::size_t i = 0; i < std::size(places); ++i) step.*places[i].field = values[i][row];
  }
}

void take_evaluations(StudyData& study, const StudyTable& validation) {
  const Columns columns(validation);
  const std::vector<double> owners = columns.numbers("point"), steps = columns.numbers("step"),
                            losses = columns.numbers("validation_loss"),
                            accuracies = columns.numbers("validation_accuracy");
  for (std::size_t row = 0; row < owners.size(); ++row)
    if (RunData* point = point_at(study, owners[row]))
      point->evaluations.push_back(
          {.step = steps[row], .loss = losses[row], .accuracy = accuracies[row]});
}

void take_head(StudyData& study, const StudyTable& head) {
  if (head.num_rows() == 0) return;
  const Columns columns(head);
  study.name = columns.texts("name").front();
  study.command = columns.texts("command").front();
  study.text = columns.texts("text").front();
  study.config_text = columns.texts("config_text").front();
  study.noise_source = columns.texts("noise_source").front();
  study.effect = columns.numbers("effect").front();
  study.noise = columns.numbers("noise").front();
}

}  // namespace

StudyData read_study(const std::string& path) {
  StudyData study{
      .path = path, .name = {}, .command = {}, .text = {}, .config_text = {}, .noise_source = {}};
  study.table = read_runs(path);  // refuses what is no study
  const hdf5::File file = hdf5::File::open(path);
  take_head(study, table_in(file, "study"));
  study.repeats = table_in(file, "repeats");
  const Columns columns(study.table);
  const std::vector<std::string> names = columns.texts("point");
  const std::vector<std::string> states = columns.texts("status");
  const std::vector<std::string> reasons = columns.texts("reason");
  study.sets = columns.texts("set");
  for (std::size_t i = 0; i < names.size(); ++i)
    study.points.push_back(
        {.name = names[i],
         .ending = reasons[i].empty() ? states[i] : states[i] + ": " + reasons[i]});
  take_configurations(study);
  take_records(study);
  take_restarts(study);
  take_curves(study, table_in(file, "curves"));
  take_evaluations(study, table_in(file, "validation"));
  return study;
}

}  // namespace switchyard::report
