// Tables: named columns of one length, of 64-bit integers, numbers or texts. A study's file is a
// group for each, with a dataset a column; a CSV file is one of them. What is not known is -1, NaN
// or an empty text.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "data/hdf5/hdf5.hpp"

namespace switchyard {

class Table {
 public:
  using Cell = std::variant<std::int64_t, double, std::string>;
  using Column =
      std::variant<std::vector<std::int64_t>, std::vector<double>, std::vector<std::string>>;

  std::size_t num_rows() const { return num_rows_; }
  const std::vector<std::string>& names() const { return names_; }
  bool has(std::string_view name) const;
  const Column& column(std::string_view name) const;  // InternalError if there is none
  // Integers as numbers (-1 is NaN); texts that are no numbers as NaN.
  std::vector<double> numbers(std::string_view name) const;
  std::vector<std::string> texts(std::string_view name) const;  // all kinds

  // set() fills the row added last. A column begins with the first value of its name, and earlier
  // rows do not know it; an integer in a column of numbers becomes one.
  void add_row() { ++num_rows_; }
  void set(std::string_view name, Cell value);
  void add_column(std::string name, Column column);
  // Brings all columns to the length of the table. Done by the functions below.
  void fill();

 private:
  std::size_t num_rows_ = 0;
  std::vector<std::string> names_;
  std::vector<Column> columns_;
};

void write_table(hdf5::File& file, const std::string& group, Table table);
Table read_table(const hdf5::File& file, const std::string& group);  // DataError

// RFC 4180, with a header: quotes where a text needs them, numbers with the fewest digits that read
// back, NaN and -1 as empty fields.
std::string csv_of(Table table);
// A column is of integers if all its fields are, of numbers if all are (an empty one is NaN), else
// of texts. DataError with the line.
Table table_of_csv(std::string_view text, const std::string& path);

}  // namespace switchyard
