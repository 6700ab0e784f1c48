#include "launch/study/table.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <optional>

#include "tensor/error.hpp"

namespace switchyard {
namespace {

constexpr double unknown = std::numeric_limits<double>::quiet_NaN();

template <class Number>
std::optional<Number> number_of(std::string_view text) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::string text_of_number(double value) {
  return std::isnan(value) ? std::string() : fmt::format("{}", value);
}

void grow(Table::Column& column, std::size_t num_rows) {
  if (auto* integers = std::get_if<std::vector<std::int64_t>>(&column))
    integers->resize(num_rows, -1);
  if (auto* numbers = std::get_if<std::vector<double>>(&column)) numbers->resize(num_rows, unknown);
  if (auto* texts = std::get_if<std::vector<std::string>>(&column)) texts->resize(num_rows);
}

std::vector<double> as_numbers(const std::vector<std::int64_t>& integers) {
  std::vector<double> numbers;
  for (const std::int64_t value : integers)
    numbers.push_back(value == -1 ? unknown : static_cast<double>(value));
  return numbers;
}

std::string csv_field(const std::string& text) {
  if (text.find_first_of("\",\r\n") == std::string::npos) return text;
  std::string out(1, '"');
  for (const char letter : text) {
    if (letter == '"') out += '"';
    out += letter;
  }
  out += '"';
  return out;
}

// The fields of the line that begins at `at`, which moves behind it. `line` counts.
std::vector<std::string> fields_of_line(std::string_view text, std::size_t& at, int& line,
                                        const std::string& path) {
  std::vector<std::string> fields(1);
  const int first_line = line;
  bool is_quoted = false;
  for (; at < text.size(); ++at) {
    const char letter = text[at];
    if (letter == '\n') ++line;
    if (is_quoted) {
      if (letter != '"')
        fields.back() += letter;
      else if (at + 1 < text.size() && text[at + 1] == '"')
        fields.back() += text[++at];
      else
        is_quoted = false;
    } else if (letter == '"' && fields.back().empty()) {
      is_quoted = true;
    } else if (letter == ',') {
      fields.emplace_back();
    } else if (letter == '\n') {
      ++at;
      return fields;
    } else if (letter != '\r') {
      fields.back() += letter;
    }
  }
  if (is_quoted)
    throw DataError(fmt::format("{}:{}: a quote is not closed; close it", path, first_line));
  ++line;
  return fields;
}

Table::Column column_of_texts(std::vector<std::string> texts) {
  std::vector<std::int64_t> integers;
  std::vector<double> numbers;
  bool has_number = false;
  for (const std::string& text : texts) {
    const auto integer = number_of<std::int64_t>(text);
    const auto number = number_of<double>(text);
    if (!number && !text.empty()) return texts;
    has_number = has_number || number;
    if (integer) integers.push_back(*integer);
    numbers.push_back(number.value_or(unknown));
  }
  if (!has_number) return texts;
  if (integers.size() == texts.size()) return integers;
  return numbers;
}

}  // namespace

bool Table::has(std::string_view name) const {
  return std::find(names_.begin(), names_.end(), name) != names_.end();
}

const Table::Column& Table::column(std::string_view name) const {
  const auto found = std::find(names_.begin(), names_.end(), name);
  expect(found != names_.end(), "a column that the table has");
  return columns_[static_cast<std::size_t>(found - names_.begin())];
}

std::vector<double> Table::numbers(std::string_view name) const {
  const Column& found = column(name);
  if (const auto* numbers = std::get_if<std::vector<double>>(&found)) return *numbers;
  if (const auto* integers = std::get_if<std::vector<std::int64_t>>(&found))
    return as_numbers(*integers);
  std::vector<double> numbers;
  for (const std::string& text : std::get<std::vector<std::string>>(found))
    numbers.push_back(number_of<double>(text).value_or(unknown));
  return numbers;
}

std::vector<std::string> Table::texts(std::string_view name) const {
  const Column& found = column(name);
  if (const auto* texts = std::get_if<std::vector<std::string>>(&found)) return *texts;
  std::vector<std::string> texts;
  if (const auto* integers = std::get_if<std::vector<std::int64_t>>(&found))
    for (const std::int64_t value : *integers)
      texts.push_back(value == -1 ? std::string() : std::to_string(value));
  if (const auto* numbers = std::get_if<std::vector<double>>(&found))
    for (const double value : *numbers) texts.push_back(text_of_number(value));
  return texts;
}

void Table::set(std::string_view name, Cell value) {
  expect(num_rows_ > 0, "a row before its values");
  const auto found = std::find(names_.begin(), names_.end(), name);
  const auto index = static_cast<std::size_t>(found - names_.begin());
  if (found == names_.end()) {
    names_.emplace_back(name);
    if (std::holds_alternative<std::int64_t>(value))
      columns_.emplace_back(std::vector<std::int64_t>());
    else if (std::holds_alternative<double>(value))
      columns_.emplace_back(std::vector<double>());
    else
      columns_.emplace_back(std::vector<std::string>());
  }
  Column& column = columns_[index];
  grow(column, num_rows_);
  if (auto* texts = std::get_if<std::vector<std::string>>(&column)) {
    expect(std::holds_alternative<std::string>(value), "texts in a column of texts");
    texts->back() = std::get<std::string>(value);
    return;
  }
  expect(!std::holds_alternative<std::string>(value), "numbers in a column of numbers");
  auto* integers = std::get_if<std::vector<std::int64_t>>(&column);
  if (integers != nullptr && std::holds_alternative<double>(value)) column = as_numbers(*integers);
  if (auto* kept = std::get_if<std::vector<std::int64_t>>(&column))
    kept->back() = std::get<std::int64_t>(value);
  else
    std::get<std::vector<double>>(column).back() =
        std::holds_alternative<double>(value) ? std::get<double>(value)
                                              : static_cast<double>(std::get<std::int64_t>(value));
}

void Table::add_column(std::string name, Column column) {
  const std::size_t length = std::visit([](const auto& values) { return values.size(); }, column);
  expect(names_.empty() || length == num_rows_, "columns of one length");
  num_rows_ = length;
  names_.push_back(std::move(name));
  columns_.push_back(std::move(column));
}

void Table::fill() {
  for (Column& column : columns_) grow(column, num_rows_);
}

void write_table(hdf5::File& file, const std::string& group, Table table) {
  table.fill();
  file.create_group(group);
  const auto num_rows = static_cast<std::int64_t>(table.num_rows());
  for (const std::string& name : table.names()) {
    const std::string path = group + "/" + name;
    const Table::Column& column = table.column(name);
    if (const auto* texts = std::get_if<std::vector<std::string>>(&column)) {
      file.write_texts(path, *texts);
    } else if (const auto* integers = std::get_if<std::vector<std::int64_t>>(&column)) {
      file.create_dataset(path, {num_rows}, hdf5::ElementType::i64)
          .write_all(std::span<const std::int64_t>(*integers));
    } else {
      file.create_dataset(path, {num_rows}, hdf5::ElementType::f64)
          .write_all(std::span<const double>(std::get<std::vector<double>>(column)));
    }
  }
}

Table read_table(const hdf5::File& file, const std::string& group) {
  Table table;
  for (const std::string& name : file.list(group)) {
    const std::string path = group + "/" + name;
    Table::Column column;
    if (file.holds_texts(path)) {
      column = file.read_texts(path);
    } else {
      const hdf5::Dataset dataset = file.open_dataset(path);
      if (dataset.type() == hdf5::ElementType::i64)
        column = dataset.read_all<std::int64_t>();
      else
        column = dataset.read_all<double>();
    }
    const std::size_t length = std::visit([](const auto& values) { return values.size(); }, column);
    if (!table.names().empty() && length != table.num_rows())
      throw DataError(
          fmt::format("{}: {} has {} rows, the columns before it have {}; build the file "
                      "anew with `switchyard sweep STUDY --collect`",
                      file.path(), path, length, table.num_rows()));
    table.add_column(name, std::move(column));
  }
  return table;
}

std::string csv_of(Table table) {
  table.fill();
  std::vector<std::vector<std::string>> columns;
  std::string out;
  for (const std::string& name : table.names()) {
    columns.push_back(table.texts(name));
    if (!out.empty()) out += ',';
    out += csv_field(name);
  }
  out += '\n';
  for (std::size_t row = 0; row < table.num_rows(); ++row)
    for (std::size_t i = 0; i < columns.size(); ++i) {
      out += csv_field(columns[i][row]);
      out += i + 1 < columns.size() ? ',' : '\n';
    }
  return out;
}

Table table_of_csv(std::string_view text, const std::string& path) {
  if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);  // a byte order mark
  std::size_t at = 0;
  int line = 1;
  const std::vector<std::string> names = fields_of_line(text, at, line, path);
  std::vector<std::vector<std::string>> columns(names.size());
  while (at < text.size()) {
    const int first_line = line;
    std::vector<std::string> fields = fields_of_line(text, at, line, path);
    if (fields.size() == 1 && fields[0].empty()) continue;
    if (fields.size() != names.size())
      throw DataError(fmt::format("{}:{}: {} fields, and the header has {} names", path, first_line,
                                  fields.size(), names.size()));
    for (std::size_t i = 0; i < fields.size(); ++i) columns[i].push_back(std::move(fields[i]));
  }
  Table table;
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (table.has(names[i]))
      throw DataError(
          fmt::format("{}:1: the column '{}' appears twice; rename one", path, names[i]));
    table.add_column(names[i], column_of_texts(std::move(columns[i])));
  }
  return table;
}

}  // namespace switchyard
