// The one table of configuration keys: for each its field in Config, type, unit, legal values and
// meaning. Reading YAML, overrides on the command line, `switchyard config`, the document of the
// keys and the suggestions for misspelt ones all come from it; a default comes from the struct.
// To add a key, add the field to its folder's struct and one entry to its section in
// schema_table.cpp, schema_model.cpp or schema_run.cpp. A choice is an enum (tensor/choice.hpp), so
// that nothing behind the schema compares texts.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "launch/config/choice_field.hpp"
#include "trainer/config.hpp"

namespace switchyard {

// The field of a key in a given Config; the alternative is the key's type.
template <class Value>
using Access = Value& (*)(Config&);
using Field = std::variant<Access<std::int64_t>, Access<double>, Access<bool>, Access<std::string>,
                           AccessChoice<ChoiceRef>, Access<std::vector<std::int64_t>>,
                           AccessChoice<ChoiceListRef>, Access<std::vector<MixerConfig>>>;

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
  std::string_view name;  // "hidden", or "rope_scaling.factor" in a group of a section's keys
  Field field;
  std::string_view unit = {};
  Range range = {};                    // of numbers, and of each in a list
  std::size_t num_withheld = 0;        // last values of an enum that no configuration may choose
  std::string_view empty_word = {};    // of lists: what stands for an empty one, as "all"
  std::span<const Key> elements = {};  // of lists of maps: the keys of one, about the first of them
  std::string_view description;
  bool is_required = false;
  std::string_view default_text = {};  // for the document, where the default depends on other keys

  // Texts that name a file or folder; "~/" at their beginning is the home folder.
  bool is_path() const { return unit.ends_with("path"); }
  std::string path() const { return std::string(section) + "." + std::string(name); }
  // The legal names of an enum, or of each in a list of them; empty for all other keys.
  std::span<const std::string_view> choices() const;
  // integer, number, boolean, text, list of integers, list of texts, list of maps
  std::string_view type_name() const;
};

// Keys of a section that stand in a map of their own. A plain value in the map's place is that of
// one of them: `context: 4` means `context: {ranks: 4}`.
struct KeyGroup {
  std::string_view section;
  std::string_view name;   // "context": its keys are named "context.ring", ...
  std::string_view value;  // "context.ranks"
};

// A key of earlier versions: refused, with what to write instead, and passed over where the program
// wrote it itself (the configuration that a checkpoint keeps).
struct RetiredKey {
  std::string_view path;
  std::string_view advice;
};

// A key's earlier name, which files and overrides may still use. The program writes the new one.
struct OldName {
  std::string_view path;
  std::string_view now;
};

struct Section {
  std::string_view name;
  std::string_view description;
};

std::span<const Section> sections();
std::span<const KeyGroup> key_groups();
std::span<const Key> schema();  // in the order of sections(), then of the document

// The key of a path "section.name" or of a section and a name; null if there is none. The name of a
// group finds the key that a plain value is for.
const Key* find_key(std::string_view path);
const Key* find_key(std::string_view section, std::string_view name);
std::size_t index_of(const Key& key);                       // in schema()
const RetiredKey* find_retired_key(std::string_view path);  // or null
// The path with today's name for an old one: "model.mixer.1.window" for "model.attention.1.window".
std::string current_path(std::string_view path);
bool is_section(std::string_view name);
const KeyGroup* find_group(std::string_view section, std::string_view name);  // or null

// "; did you mean model.hidden?" for an unknown key of a section (empty: at the top level, where
// sections stand), or an empty text when nothing is near.
std::string key_suggestion(std::string_view section, std::string_view name);
// What is wrong with a path that find_key() does not know and that is no section: "unknown key;
// did you mean train.num_steps?".
std::string unknown_path(std::string_view path);

}  // namespace switchyard
