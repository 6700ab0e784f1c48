// What a benchmark prints: lines that begin with "#" for the conditions and the ceilings, then one
// row per case as soon as it is measured; or all of it as one JSON object. Rank 0 prints.
// JSON holds plain units (seconds, bytes, FLOP/s, shares of 1) under keys that say so; the table
// scales them for the reader.
#pragma once

#include <cstdint>
#include <ostream>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "bench/machine.hpp"
#include "bench/measure.hpp"

namespace switchyard::bench {

struct Output {
  std::ostream& stream;  // of rank 0
  bool json = false;
  Versions versions;
};

// monostate: the case has no such figure; "-" in the table, null in JSON.
using Value = std::variant<std::monostate, std::string, std::int64_t, double>;

struct Column {
  std::string heading;  // in the table
  std::string key;      // in JSON
  int width = 10;       // negative: aligned left
  double scale = 1;     // of doubles, from the plain unit to the heading's
  int num_decimals = 1;
};
// min, median and max in ms or us, as columns and values of a row.
std::vector<Column> time_columns(const std::string& unit);
Column rate_column();   // GFLOP/s
Column share_column();  // % of ceiling
void append(std::vector<Value>& row, const Times& times);

class Report {
 public:
  // Prints the head: the benchmark's name and the machine.
  Report(const Group& world, const Output& output, const std::string& benchmark);

  void note(const std::string& line);              // in the table's head only
  void fact(const std::string& key, Value value);  // in JSON only
  // what: "fp32 products"; the JSON key is fp32_products. unit: "FLOP/s" or "B/s".
  void ceiling(const std::string& what, double rate, const std::string& unit);
  void columns(std::vector<Column> columns);   // once, before the rows
  void row(const std::vector<Value>& values);  // one value for each column
  void line(const std::string& text);          // below the table
  void finish();                               // prints the JSON

 private:
  void print(const std::string& text);

  std::ostream& stream_;
  bool prints_text_ = false;
  bool prints_json_ = false;
  std::string benchmark_;
  Machine machine_;
  std::vector<std::pair<std::string, Value>> ceilings_;
  std::vector<std::pair<std::string, Value>> facts_;
  std::vector<Column> columns_;
  std::vector<std::vector<Value>> rows_;
};

}  // namespace switchyard::bench
