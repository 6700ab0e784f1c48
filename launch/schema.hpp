// The one table of configuration keys: for each its field in Config, type, unit, legal values and
// meaning. Reading YAML, overrides on the command line, `switchyard config`, the document of the
// keys and the suggestions for misspelt ones all come from it; a default comes from the struct.
// To add a key, add the field to its folder's struct and one line to the table in schema.cpp.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "trainer/config.hpp"

namespace switchyard {

// The field of a key in a given Config; the alternative is the key's type.
using Field = std::variant<std::int64_t& (*)(Config&), double& (*)(Config&), bool& (*)(Config&),
                           std::string& (*)(Config&)>;

// The legal numbers: from `least` (or above it, if open) to `most` (or below it, if open).
struct Range {
  double least = -std::numeric_limits<double>::infinity();
  double most = std::numeric_limits<double>::infinity();
  bool least_is_open = false;
  bool most_is_open = false;

  bool contains(double value) const;
  // "at least 1", "above 0", "at least 0 and below 1"; empty if everything is legal.
  std::string to_string() const;
};

struct Key {
  std::string_view section;
  std::string_view name;
  Field field;
  std::string_view unit = {};
  Range range = {};                            // of numbers
  std::vector<std::string_view> choices = {};  // of texts; empty: any
  std::string_view description;
  bool is_required = false;

  std::string path() const { return std::string(section) + "." + std::string(name); }
  std::string_view type_name() const;  // integer, number, boolean, text
};

struct Section {
  std::string_view name;
  std::string_view description;
};

std::span<const Section> sections();
std::span<const Key> schema();  // in the order of sections(), then of the document

// The key of a path "section.name" or of a section and a name; null if there is none.
const Key* find_key(std::string_view path);
const Key* find_key(std::string_view section, std::string_view name);
std::size_t index_of(const Key& key);  // in schema()
bool is_section(std::string_view name);

// "; did you mean model.hidden?" for an unknown key of a section (empty: at the top level, where
// sections stand), or an empty text when nothing is near.
std::string key_suggestion(std::string_view section, std::string_view name);

}  // namespace switchyard
