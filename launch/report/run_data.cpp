#include "launch/report/run_data.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "data/files/atomic_file.hpp"
#include "launch/config/config_file.hpp"
#include "tensor/error.hpp"

namespace switchyard::report {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

double number(const Json& json, const char* key) {
  const auto found = json.find(key);
  return found != json.end() && found->is_number() ? found->get<double>() : unknown;
}

std::string text(const Json& json, const char* key) {
  const auto found = json.find(key);
  return found != json.end() && found->is_string() ? found->get<std::string>() : std::string();
}

std::array<double, num_parts> parts_in(const Json& json) {
  std::array<double, num_parts> values{};
  for (std::size_t part = 0; part < num_parts; ++part) {
    const double value = number(json, std::string(name_of(static_cast<Part>(part))).c_str());
    values[part] = std::isfinite(value) ? value : 0;
  }
  return values;
}

StepData step_of(const Json& line) {
  StepData step{.step = number(line, "step"),
                .cross_entropy = number(line, "cross_entropy"),
                .grad_norm = number(line, "grad_norm"),
                .learning_rate = number(line, "learning_rate"),
                .num_tokens = number(line, "num_tokens"),
                .seconds = number(line, "step_seconds"),
                .tokens_per_second = number(line, "tokens_per_second"),
                .model_flops_per_second = number(line, "model_flops_per_second"),
                .memory_bytes = number(line, "memory_bytes"),
                .max_rows = number(line, "max_rows"),
                .load_max_over_mean = number(line, "load_max_over_mean"),
                .dropped_fraction = number(line, "dropped_fraction")};
  if (const auto loads = line.find("load_by_layer"); loads != line.end() && loads->is_array())
    for (const Json& load : *loads)
      step.load_by_layer.push_back(load.is_number() ? load.get<double>() : unknown);
  if (const auto parts = line.find("part_seconds"); parts != line.end() && parts->is_object())
    step.part_seconds = parts_in(*parts);
  return step;
}

// Of the last step that has such lines, which come after all before.
void take_layer(RunData& run, const Json& line) {
  const auto loads = line.find("load_percent");
  if (loads == line.end() || !loads->is_array()) return;
  if (run.layers_step != number(line, "step")) run.layers.clear();
  run.layers_step = number(line, "step");
  LayerData& layer = run.layers.emplace_back(LayerData{.layer = number(line, "layer")});
  for (const Json& load : *loads)
    layer.loads.push_back(load.is_number() ? load.get<double>() / 100 : unknown);
}

void take_line(RunData& run, const Json& line) {
  if (text(line, "event") == "layer") return take_layer(run, line);
  if (line.contains("event") && text(line, "event") != "restart") return;
  if (line.contains("event")) {
    run.restarts.push_back({.step = number(line, "step"),
                            .lost_steps = number(line, "lost_steps"),
                            .lost_seconds = number(line, "lost_seconds"),
                            .reason = text(line, "reason")});
  } else if (line.contains("validation_loss")) {
    run.evaluations.push_back({.step = number(line, "step"),
                               .loss = number(line, "validation_loss"),
                               .accuracy = number(line, "validation_accuracy")});
  } else if (line.contains("loss")) {
    run.steps.push_back(step_of(line));
  }
}

void take_metrics(RunData& run, const std::string& metrics) {
  std::size_t num_unread = 0;
  for (std::size_t begin = 0; begin < metrics.size();) {
    const std::size_t end = std::min(metrics.find('\n', begin), metrics.size());
    const Json line =
        Json::parse(metrics.begin() + static_cast<std::ptrdiff_t>(begin),
                    metrics.begin() + static_cast<std::ptrdiff_t>(end), nullptr, false);
    if (line.is_object() && std::isfinite(number(line, "step")))
      take_line(run, line);
    else
      ++num_unread;
    begin = end + 1;
  }
  if (num_unread > 0)
    run.missing.push_back(fmt::format("{} lines of metrics.jsonl cannot be read.", num_unread));
}

// The text of a file of the run; none, and a sentence in `missing`, if it cannot be read.
std::optional<std::string> file_of(RunData& run, const std::string& folder, const char* name,
                                   const char* what) {
  const std::string path = folder + "/" + name;
  std::error_code error;
  if (fs::is_regular_file(path, error)) {
    try {
      return read_file(path, std::int64_t{4} << 30);
    } catch (const IoError& failure) {
      run.missing.emplace_back(failure.what());
      return std::nullopt;
    }
  }
  run.missing.push_back(fmt::format("There is no {}: {}.", name, what));
  return std::nullopt;
}

std::string hosts_in(const Json& record) {
  std::string hosts;
  const auto found = record.find("hosts");
  if (found == record.end() || !found->is_array()) return hosts;
  for (const Json& host : *found)
    if (host.is_object())
      hosts += fmt::format("{}{} ({} ranks)", hosts.empty() ? "" : ", ", text(host, "name"),
                           number(host, "num_ranks"));
  return hosts;
}

void take_plan(RecordData& record, const Json& planned) {
  record.planned_memory = number(planned, "memory_bytes");
  if (const auto by = planned.find("memory_by_purpose"); by != planned.end() && by->is_object())
    for (const auto& [purpose, bytes] : by->items())
      if (bytes.is_number()) record.memory_by_purpose.emplace_back(purpose, bytes.get<double>());
  if (const auto rows = planned.find("at_measured_rows");
      rows != planned.end() && rows->is_object()) {
    record.measured_rows = number(*rows, "rows");
    record.planned_memory_at_rows = number(*rows, "memory_bytes");
  }
  const auto parts = planned.find("parts");
  if (parts == planned.end() || !parts->is_object()) return;
  for (std::size_t part = 0; part < num_parts; ++part) {
    const auto found = parts->find(std::string(name_of(static_cast<Part>(part))));
    if (found == parts->end() || !found->is_object()) continue;
    record.part_flops[part] = number(*found, "flops");
    record.part_wire_bytes[part] = number(*found, "wire_bytes");
  }
}

PredictedData predicted_in(const Json& json) {
  PredictedData predicted{.profile = text(json, "profile"),
                          .why_not = text(json, "why_not"),
                          .imbalance = number(json, "imbalance"),
                          .step = number(json, "step_seconds")};
  if (const auto parts = json.find("parts"); parts != json.end() && parts->is_object())
    predicted.parts = parts_in(*parts);
  if (const auto measured = json.find("measured");
      measured != json.end() && measured->is_object()) {
    predicted.measured_step = number(*measured, "step_seconds");
    if (const auto parts = measured->find("parts"); parts != measured->end() && parts->is_object())
      predicted.measured_parts = parts_in(*parts);
  }
  return predicted;
}

void take_record(RunData& run, const std::string& file) {
  const Json json = Json::parse(file, nullptr, false);
  if (!json.is_object()) {
    run.missing.emplace_back("record.json cannot be read.");
    return;
  }
  RecordData record{.command = text(json, "command"),
                    .directory = text(json, "directory"),
                    .version = text(json, "version"),
                    .device = text(json, "device"),
                    .time = text(json, "time"),
                    .hosts = hosts_in(json),
                    .num_ranks = number(json, "num_ranks"),
                    .num_threads = number(json, "num_threads"),
                    .peak_flops_per_second = number(json, "peak_flops_per_second"),
                    .num_parameters = number(json, "num_parameters"),
                    .num_active_parameters = number(json, "num_active_parameters")};
  if (const auto parallel = json.find("parallel");
      parallel != json.end() && parallel->is_object()) {
    record.data = number(*parallel, "data");
    record.context = number(*parallel, "context");
    record.expert = number(*parallel, "expert");
  }
  if (const auto planned = json.find("planned"); planned != json.end() && planned->is_object())
    take_plan(record, *planned);
  if (const auto foretold = json.find("predicted"); foretold != json.end() && foretold->is_object())
    record.predicted = predicted_in(*foretold);
  run.record = std::move(record);
}

void take_config(RunData& run, std::string file) {
  try {
    run.config = saved_values(file);
  } catch (const Error&) {
    run.config.clear();
  }
  if (run.config.empty())
    run.missing.emplace_back("config.yaml cannot be read as a configuration.");
  run.config_text = std::move(file);
}

std::string ending_in(const std::string& folder) {
  std::error_code error;
  const std::string path = folder + "/exit.json";
  if (!fs::is_regular_file(path, error)) return "under way, or killed without a word";
  try {
    const Json json = Json::parse(read_file(path, 1 << 20), nullptr, false);
    if (!json.is_object()) return "unknown: exit.json cannot be read";
    const double code = number(json, "code");
    const std::string reason = text(json, "reason");
    return code == 0 ? "done" : fmt::format("{} (code {})", reason, code);
  } catch (const IoError&) {
    return "unknown: exit.json cannot be read";
  }
}

}  // namespace

std::string RunData::value_of(std::string_view key) const {
  const auto found =
      std::ranges::find_if(config, [&](const auto& entry) { return entry.first == key; });
  return found == config.end() ? std::string() : found->second;
}

RunData read_run(const std::string& given) {
  std::string folder = given;
  while (folder.size() > 1 && folder.back() == '/') folder.pop_back();
  std::error_code error;
  if (!fs::exists(folder + "/metrics.jsonl", error) && !fs::exists(folder + "/run.json", error))
    throw DataError(fmt::format(
        "{}: is no folder of a run (it has neither metrics.jsonl nor run.json); give what "
        "run.output named",
        folder));
  RunData run{.name = folder, .ending = ending_in(folder)};
  if (const auto metrics = file_of(run, folder, "metrics.jsonl", "no step has been taken"))
    take_metrics(run, *metrics);
  if (auto config = file_of(run, folder, "config.yaml", "the configuration is not known"))
    take_config(run, std::move(*config));
  if (const auto record = file_of(run, folder, "record.json",
                                  "how the run was started, on what, and what was planned of it"))
    take_record(run, *record);
  return run;
}

double median_of(std::vector<double> values) {
  std::erase_if(values, [](double value) { return !std::isfinite(value); });
  if (values.empty()) return unknown;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

double usual_tokens_per_second(const RunData& run) {
  constexpr std::size_t first_steps = 2;
  std::vector<double> values;
  for (std::size_t i = run.steps.size() > first_steps ? first_steps : 0; i < run.steps.size(); ++i)
    values.push_back(run.steps[i].tokens_per_second);
  return median_of(std::move(values));
}

double total_seconds(const RunData& run) {
  double sum = 0;
  for (const StepData& step : run.steps)
    if (std::isfinite(step.seconds)) sum += step.seconds;
  return sum;
}

void add_exchanges(RunData& run) {
  constexpr std::int64_t most_bytes = std::int64_t{1} << 27;  // of a trace
  constexpr std::size_t most_exchanges = 20'000;              // of a run
  std::error_code error;
  std::vector<std::string> paths;
  for (const fs::directory_entry& entry : fs::directory_iterator(run.name + "/traces", error))
    if (entry.path().extension() == ".json") paths.push_back(entry.path());
  std::ranges::sort(paths);
  for (const std::string& path : paths) {
    try {
      const Json trace = Json::parse(read_file(path, most_bytes), nullptr, false);
      if (!trace.is_object() || !trace.contains("traceEvents") || !trace["traceEvents"].is_array())
        throw DataError(path + " cannot be read as a trace.");
      for (const Json& event : trace["traceEvents"]) {
        if (!event.is_object() || text(event, "cat") != "exchange" || !event.contains("args") ||
            !event["args"].is_object() || run.exchanges.size() == most_exchanges)
          continue;
        const double bytes = number(event["args"], "bytes_sent");
        const double seconds = 1e-6 * number(event, "dur");
        if (bytes > 0 && seconds > 0)
          run.exchanges.push_back({text(event["args"], "operation"), bytes, seconds});
      }
    } catch (const Error& failure) {
      run.missing.emplace_back(failure.what());
    }
  }
}

}  // namespace switchyard::report
