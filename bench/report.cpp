#include "bench/report.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "tensor/error.hpp"

namespace switchyard::bench {

namespace {

using Json = nlohmann::ordered_json;

Json json_of(const Value& value) {
  return std::visit(
      [](const auto& held) -> Json {
        if constexpr (std::is_same_v<std::decay_t<decltype(held)>, std::monostate>)
          return nullptr;
        else
          return held;
      },
      value);
}

Json json_of(const Machine& machine) {
  return {{"processor", machine.processor},
          {"num_cores", machine.num_cores},
          {"isa", machine.isa},
          {"native_bf16", machine.native_bf16},
          {"num_ranks", machine.num_ranks},
          {"num_threads", machine.num_threads},
          {"load_average", machine.load_average},
          {"switchyard", machine.versions.program},
          {"compiler", machine.versions.compiler},
          {"onednn", machine.versions.onednn},
          {"mpi", machine.versions.mpi}};
}

std::string text_of(const Value& value, const Column& column) {
  if (const auto* text = std::get_if<std::string>(&value)) return *text;
  if (const auto* whole = std::get_if<std::int64_t>(&value)) return std::to_string(*whole);
  if (const auto* number = std::get_if<double>(&value))
    return fmt::format("{:.{}f}", *number * column.scale, column.num_decimals);
  return "-";
}

// The cells of a line; a column that is aligned left stands two blanks off the one before it.
std::string line_of(const std::vector<Column>& columns, const std::vector<std::string>& cells) {
  std::string line;
  for (std::size_t i = 0; i < cells.size(); ++i) {
    const int width = columns[i].width;
    if (width < 0 && i > 0) line += "  ";
    line += width < 0 ? fmt::format("{:<{}}", cells[i], -width)
                      : fmt::format("{:>{}}", cells[i], width);
  }
  return line + "\n";
}

}  // namespace

std::vector<Column> time_columns(const std::string& unit) {
  const double scale = unit == "us" ? 1e6 : 1e3;
  const int num_decimals = unit == "us" ? 1 : 3;
  std::vector<Column> columns;
  for (const char* which : {"min", "median", "max"})
    columns.push_back({.heading = fmt::format("{} {}", which, unit),
                       .key = fmt::format("{}_seconds", which),
                       .width = 11,
                       .scale = scale,
                       .num_decimals = num_decimals});
  return columns;
}

Column rate_column() {
  return {.heading = "GFLOP/s", .key = "flops_per_second", .width = 10, .scale = 1e-9};
}

Column share_column() {
  return {.heading = "% of ceiling", .key = "ceiling_share", .width = 14, .scale = 100};
}

void append(std::vector<Value>& row, const Times& times) {
  row.insert(row.end(), {times.min, times.median, times.max});
}

Report::Report(const Group& world, const Output& output, const std::string& benchmark)
    : stream_(output.stream),
      prints_text_(world.rank() == 0 && !output.json),
      prints_json_(world.rank() == 0 && output.json),
      benchmark_(benchmark),
      machine_(describe_machine(world, output.versions)) {
  print(fmt::format("# switchyard bench {}\n{}", benchmark, to_text(machine_)));
}

void Report::print(const std::string& text) {
  if (prints_text_) stream_ << text << std::flush;
}

void Report::note(const std::string& line) {
  print("# " + line + "\n");
}

void Report::fact(const std::string& key, Value value) {
  facts_.emplace_back(key, std::move(value));
}

void Report::ceiling(const std::string& what, double rate, const std::string& unit) {
  note(fmt::format("ceiling: {} at {:.1f} G{}, measured in this run on all ranks at once", what,
                   rate / 1e9, unit));
  std::string key = what;
  std::replace(key.begin(), key.end(), ' ', '_');
  ceilings_.emplace_back(key + (unit == "FLOP/s" ? "_flops_per_second" : "_bytes_per_second"),
                         rate);
}

void Report::columns(std::vector<Column> columns) {
  columns_ = std::move(columns);
  std::vector<std::string> headings;
  for (const Column& column : columns_) headings.push_back(column.heading);
  print(line_of(columns_, headings));
}

void Report::row(const std::vector<Value>& values) {
  expect(values.size() == columns_.size(), "a value for each column");
  std::vector<std::string> cells;
  for (std::size_t i = 0; i < values.size(); ++i) cells.push_back(text_of(values[i], columns_[i]));
  print(line_of(columns_, cells));
  rows_.push_back(values);
}

void Report::line(const std::string& text) {
  print(text + "\n");
}

void Report::finish() {
  if (!prints_json_) return;
  Json json;
  json["benchmark"] = benchmark_;
  json["machine"] = json_of(machine_);
  for (const auto& [key, value] : ceilings_) json["ceilings"][key] = json_of(value);
  for (const auto& [key, value] : facts_) json[key] = json_of(value);
  json["rows"] = Json::array();
  for (const std::vector<Value>& values : rows_) {
    Json row;
    for (std::size_t i = 0; i < values.size(); ++i) row[columns_[i].key] = json_of(values[i]);
    json["rows"].push_back(std::move(row));
  }
  stream_ << json.dump(2) << std::endl;
}

}  // namespace switchyard::bench
