// Pieces of an HTML page that stands alone: texts of others are escaped, tables sort when their
// heads are clicked, and nothing is loaded from anywhere.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace switchyard::report {

// Any bytes as text of an element or of a quoted attribute: markup is taken for letters, invalid
// UTF-8 and control characters are replaced.
std::string escape(std::string_view text);

struct Cell {
  Cell() = default;
  Cell(std::string_view shown) : text(shown) {}    // NOLINT: a text is a cell
  Cell(const char* shown) : text(shown) {}         // NOLINT
  Cell(const std::string& shown) : text(shown) {}  // NOLINT
  // A number, with what it is sorted by.
  Cell(std::string_view shown, double value) : text(shown), sort_value(value) {}

  std::string text;  // not yet escaped
  std::optional<double> sort_value;
};

struct Table {
  std::vector<std::string> heads;
  std::vector<std::vector<Cell>> rows;
};
// Empty for a table without rows.
std::string table_html(const Table& table);

std::string paragraph(std::string_view text);  // escaped
// A text as it stands, folded away under a line of words.
std::string folded_text(std::string_view summary, std::string_view text);
// A section with a heading; `inside` is markup.
std::string section(std::string_view id, std::string_view heading, std::string_view inside);
// The whole document: styles for light, dark, narrow and printed pages, and the script that sorts.
std::string document(std::string_view title, std::string_view inside);

}  // namespace switchyard::report
