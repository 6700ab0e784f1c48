#include "launch/config/config_file.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdio>
#include <map>

#include "launch/config/list_value.hpp"
#include "launch/config/relations.hpp"
#include "launch/config/value.hpp"
#include "launch/config/yaml_tree.hpp"
#include "tensor/error.hpp"

namespace switchyard {
namespace {

// Fills a LoadedConfig and collects what is wrong on the way.
class ConfigReader {
 public:
  // is_saved: the program wrote it, perhaps an earlier version.
  explicit ConfigReader(const std::string& path, bool is_saved = false)
      : is_saved_(is_saved),
        is_unknown_(schema().size(), false),
        is_attempted_(schema().size(), false) {
    loaded_.path = path;
    loaded_.origins.resize(schema().size());
  }

  void read_text(std::string_view text);
  void read_override(const std::string& argument);
  void check_required();
  // Values that are left out and follow from others.
  void fill_dependent_defaults();
  void check_relations();

  // What the text has set rightly so far.
  ConfigValues values() const;

  // Throws all mistakes, in the order of the file, then of the command line.
  LoadedConfig finish();

 private:
  void mistake(Place place, std::string text) { mistakes_.push_back({place, std::move(text)}); }
  void mistake_of_argument(const std::string& argument, std::string_view problem) {
    argument_mistakes_.push_back(
        fmt::format("command line: {}: {}", for_message(argument), problem));
  }
  void read_section(const YamlNode& name, const YamlNode& content);
  void read_keys(std::string_view section, std::string_view group, const YamlNode& content);
  void read_value(const Key& key, const YamlNode& name, const YamlNode& value);
  bool read_list(const Key& key, const YamlNode& value);
  Origin origin_of(const std::string& argument) const {
    return {.kind = Origin::Kind::command_line,
            .line = 0,
            .column = 0,
            .number = num_arguments_,
            .argument = argument};
  }
  void override_value(const Key& key, const std::string& argument, const std::string& text);
  bool is_given_twice(const std::string& argument, const std::string& path);

  bool is_saved_;
  LoadedConfig loaded_;
  std::vector<Mistake> mistakes_;
  std::vector<std::string> argument_mistakes_;
  int num_arguments_ = 0;           // so far
  std::vector<bool> is_unknown_;    // the value given for the key was refused
  std::vector<bool> is_attempted_;  // somebody gave a value, right or wrong
  std::map<std::string, Place, std::less<>> section_places_;
  std::map<const Key*, std::string> names_of_arguments_;  // of keys that arguments set
  bool has_structure_ = false;  // the text is a map: missing keys and relations can be told
};

// A key of a map as text, or an empty text and a mistake.
std::string key_text(const YamlNode& name, std::vector<Mistake>& mistakes) {
  if (name.kind == YamlNode::Kind::scalar && !name.text.empty()) return name.text;
  if (name.kind != YamlNode::Kind::alias) {
    mistakes.push_back(
        {name.place,
         fmt::format("a key must be a word, got {}",
                     name.kind == YamlNode::Kind::scalar ? "an empty text" : name.kind_name())});
  }
  return {};
}

void ConfigReader::read_text(std::string_view text) {
  const std::size_t num_before = mistakes_.size();
  const YamlNode root = parse_yaml(text, mistakes_);
  if (root.kind == YamlNode::Kind::null) {
    if (mistakes_.size() == num_before) {
      mistake({}, fmt::format("the file is empty; it must set at least {}", [] {
                std::vector<std::string> required;
                for (const Key& key : schema()) {
                  if (key.is_required) required.push_back(key.path());
                }
                return fmt::format("{}", fmt::join(required, " and "));
              }()));
    }
    return;
  }
  if (root.kind != YamlNode::Kind::map) {
    mistake(root.place, fmt::format("expected sections (run, data, model, ...) with their keys at "
                                    "the top level, got {}",
                                    root.kind_name()));
    return;
  }
  has_structure_ = true;
  for (const auto& [name, content] : root.entries) read_section(name, content);
}

void ConfigReader::read_section(const YamlNode& name, const YamlNode& content) {
  const std::string section = key_text(name, mistakes_);
  if (section.empty()) return;
  const std::string shown = for_message(section);
  const auto [first, is_new] = section_places_.emplace(section, name.place);
  if (!is_new) {
    mistake(name.place, fmt::format("{}: appears a second time, first on line {}; join the two",
                                    shown, first->second.line));
  }
  if (section == "<<") {
    mistake(name.place, "merge keys (<<) are not supported; write the keys out");
    return;
  }
  if (!is_section(section)) {
    const std::size_t dot = section.find('.');
    const bool is_key = dot != std::string::npos && is_section(section.substr(0, dot));
    const std::string remedy =
        is_key ? fmt::format("; in a file write {}: with {}: below it", section.substr(0, dot),
                             for_message(section.substr(dot + 1)))
               : key_suggestion("", section);
    mistake(name.place, fmt::format("{}: unknown section{}", shown, remedy));
    return;
  }
  if (content.kind == YamlNode::Kind::null || content.kind == YamlNode::Kind::alias) return;
  if (content.kind != YamlNode::Kind::map) {
    mistake(content.place,
            fmt::format("{}: expected keys with values, got {}", shown, content.kind_name()));
    return;
  }
  read_keys(section, "", content);
}

// group: "", or "rope_scaling." for the keys of a map inside the section.
void ConfigReader::read_keys(std::string_view section, std::string_view group,
                             const YamlNode& content) {
  std::map<std::string, std::pair<std::string, Place>, std::less<>> seen;  // by today's name
  for (const auto& [key_name, value] : content.entries) {
    std::string text = key_text(key_name, mistakes_);
    if (text.empty()) continue;
    // A dot separates group and key on the command line; in the file a map does.
    const bool is_merge = text == "<<";
    const bool is_dotted = text.find('.') != std::string::npos;
    text.insert(0, group);
    const std::string path = fmt::format("{}.{}", section, for_message(text));
    const auto [earlier, is_first] = seen.emplace(current_path(fmt::format("{}.{}", section, text)),
                                                  std::pair(text, key_name.place));
    if (const auto& [first_text, place] = earlier->second; !is_first) {
      mistake(key_name.place,
              first_text == text
                  ? fmt::format("{}: appears a second time, first on line {}; remove one", path,
                                place.line)
                  : fmt::format("{}: is another name of {}.{}, which line {} sets; remove one",
                                path, section, first_text, place.line));
    }
    if (is_merge) {
      mistake(key_name.place, "merge keys (<<) are not supported; write the keys out");
    } else if (is_dotted) {
      mistake(key_name.place,
              fmt::format("{}: unknown key; write maps, not dots, in a file", path));
    } else if (value.kind == YamlNode::Kind::map && find_group(section, text) != nullptr) {
      read_keys(section, text + ".", value);
    } else if (const Key* key = find_key(fmt::format("{}.{}", section, text))) {
      read_value(*key, key_name, value);
    } else if (const RetiredKey* retired = find_retired_key(path)) {
      if (!is_saved_) mistake(key_name.place, fmt::format("{}: {}", path, retired->advice));
    } else {
      mistake(key_name.place,
              fmt::format("{}: unknown key{}", path, key_suggestion(section, text)));
    }
  }
}

void ConfigReader::read_value(const Key& key, const YamlNode& name, const YamlNode& value) {
  const std::size_t index = index_of(key);
  is_attempted_[index] = true;
  loaded_.origins[index] = {.kind = Origin::Kind::file,
                            .line = value.place.line,
                            .column = value.place.column,
                            .number = 0,
                            .argument = {}};
  is_unknown_[index] = true;
  if (value.kind == YamlNode::Kind::alias) return;
  if (value.kind == YamlNode::Kind::null) {
    mistake(name.place, fmt::format("{}: {}, got nothing{}", key.path(), expectation(key),
                                    key.is_required ? "" : "; leave the key out for its default"));
    return;
  }
  if (is_list(key)) {
    is_unknown_[index] = !read_list(key, value);
    return;
  }
  if (value.kind != YamlNode::Kind::scalar) {
    mistake(value.place,
            fmt::format("{}: {}, got {}", key.path(), expectation(key), value.kind_name()));
    return;
  }
  if (const auto problem = assign_value(loaded_.config, key, value.text, value.quoted)) {
    mistake(value.place, fmt::format("{}: {}", key.path(), *problem));
    return;
  }
  is_unknown_[index] = false;
}

bool ConfigReader::read_list(const Key& key, const YamlNode& value) {
  std::vector<ValueMistake> wrong;
  assign_list(loaded_.config, key, value, wrong);
  for (const ValueMistake& each : wrong)
    mistake(each.place, fmt::format("{}: {}", each.path, each.problem));
  return wrong.empty();
}

void ConfigReader::override_value(const Key& key, const std::string& argument,
                                  const std::string& text) {
  const std::size_t index = index_of(key);
  is_attempted_[index] = true;
  loaded_.origins[index] = origin_of(argument);
  std::vector<ValueMistake> wrong;
  if (is_list(key)) {
    assign_list_text(loaded_.config, key, text, wrong);
  } else if (const auto problem = assign_value(loaded_.config, key, text)) {
    wrong.push_back({{}, key.path(), *problem});
  }
  is_unknown_[index] = !wrong.empty();
  for (const ValueMistake& each : wrong)
    mistake_of_argument(argument, each.path == key.path()
                                      ? each.problem
                                      : fmt::format("{}: {}", each.path, each.problem));
}

// Whether another argument sets the same key by another of its names. `path`: of this one.
bool ConfigReader::is_given_twice(const std::string& argument, const std::string& path) {
  const std::optional<ListPart> part = find_list_part(path);
  const Key* key = part ? part->list : find_key(path);
  if (key == nullptr) return false;
  const bool is_old = current_path(path) != path;
  const std::string name =
      is_old ? path.substr(0, path.find('.', path.find('.') + 1)) : key->path();
  const auto [earlier, is_first] = names_of_arguments_.emplace(key, name);
  if (is_first || earlier->second == name) return false;
  mistake_of_argument(argument, fmt::format("{} is another name of {}, which an argument before "
                                            "sets; write one of them",
                                            name, earlier->second));
  return true;
}

void ConfigReader::read_override(const std::string& argument) {
  ++num_arguments_;
  const std::size_t equals = argument.find('=');
  if (equals == std::string::npos || equals == 0) {
    mistake_of_argument(argument, "expected KEY=VALUE, as in train.num_steps=10");
    return;
  }
  const std::string path = argument.substr(0, equals);
  if (is_given_twice(argument, path)) return;
  if (const auto part = find_list_part(path)) {
    const std::size_t index = index_of(*part->list);
    is_attempted_[index] = true;
    loaded_.origins[index] = origin_of(argument);
    if (const auto problem = assign_list_part(loaded_.config, *part, argument.substr(equals + 1))) {
      is_unknown_[index] = true;
      mistake_of_argument(argument, *problem);
    }
    return;
  }
  const Key* key = find_key(path);
  if (key == nullptr) {
    const RetiredKey* retired = find_retired_key(path);
    const std::string problem =
        is_section(path)
            ? fmt::format("{} is a section; set its keys one by one, as in {}.KEY=VALUE", path,
                          path)
        : retired != nullptr ? std::string(retired->advice)
                             : unknown_path(path);
    mistake_of_argument(argument, problem);
    return;
  }
  override_value(*key, argument, argument.substr(equals + 1));
}

void ConfigReader::check_required() {
  if (!has_structure_) return;
  for (const Key& key : schema()) {
    if (!key.is_required || is_attempted_[index_of(key)]) continue;
    is_unknown_[index_of(key)] = true;
    const auto section = section_places_.find(key.section);
    mistake(section == section_places_.end() ? Place{} : section->second,
            fmt::format("{}: missing; every configuration must set it", key.path()));
  }
}

void ConfigReader::fill_dependent_defaults() {
  ExpertsConfig& experts = loaded_.config.experts;
  if (!is_attempted_[index_of(*find_key("experts.normalize_top_k"))])
    experts.normalize_top_k =
        experts.router.softmax_over == SoftmaxOver::chosen ||
        (experts.top_k > 1 && experts.router.kind != RouterKind::expert_choice);
}

void ConfigReader::check_relations() {
  if (!has_structure_) return;
  for (const BrokenRelation& broken : broken_relations(loaded_, is_unknown_)) {
    const Origin& origin = loaded_.origin(*broken.key);
    if (origin.kind == Origin::Kind::command_line) {
      mistake_of_argument(origin.argument, broken.problem);
    } else {
      mistake({.line = std::max(origin.line, 1), .column = std::max(origin.column, 1)},
              fmt::format("{}: {}", broken.key->path(), broken.problem));
    }
  }
}

ConfigValues ConfigReader::values() const {
  ConfigValues values;
  for (const Key& key : schema())
    if (is_attempted_[index_of(key)] && !is_unknown_[index_of(key)])
      values.emplace_back(key.path(), format_value(loaded_.config, key));
  return values;
}

LoadedConfig ConfigReader::finish() {
  std::stable_sort(mistakes_.begin(), mistakes_.end(), [](const Mistake& a, const Mistake& b) {
    return std::pair(a.place.line, a.place.column) < std::pair(b.place.line, b.place.column);
  });
  std::vector<std::string> lines;
  for (const Mistake& each : mistakes_) {
    lines.push_back(
        fmt::format("{}:{}:{}: {}", loaded_.path, each.place.line, each.place.column, each.text));
  }
  lines.insert(lines.end(), argument_mistakes_.begin(), argument_mistakes_.end());
  if (!lines.empty()) throw ConfigError(fmt::format("{}", fmt::join(lines, "\n")));
  return std::move(loaded_);
}

// One line for what is wrong with a key of a loaded configuration.
std::string line_for(const LoadedConfig& loaded, const BrokenRelation& broken) {
  const Origin& origin = loaded.origin(*broken.key);
  switch (origin.kind) {
    case Origin::Kind::command_line:
      return fmt::format("command line: {}: {}", for_message(origin.argument), broken.problem);
    case Origin::Kind::file:
      return fmt::format("{}:{}:{}: {}: {}", loaded.path, origin.line, origin.column,
                         broken.key->path(), broken.problem);
    case Origin::Kind::default_value:
      break;
  }
  return fmt::format("{}:1:1: {}: {}", loaded.path, broken.key->path(), broken.problem);
}

std::vector<std::string> lines_for(const LoadedConfig& loaded,
                                   const std::vector<BrokenRelation>& broken) {
  std::vector<std::string> lines;
  for (const BrokenRelation& each : broken) lines.push_back(line_for(loaded, each));
  return lines;
}

}  // namespace

std::string LoadedConfig::origin_text(const Key& key) const {
  const Origin& from = origin(key);
  switch (from.kind) {
    case Origin::Kind::file:
      return fmt::format("{}:{}:{}", path, from.line, from.column);
    case Origin::Kind::command_line:
      return fmt::format("command line: {}", for_message(from.argument));
    case Origin::Kind::default_value:
      break;
  }
  return "default";
}

namespace {

LoadedConfig load(ConfigReader& reader, std::string_view text,
                  std::span<const std::string> overrides) {
  reader.read_text(text);
  for (const std::string& argument : overrides) reader.read_override(argument);
  reader.check_required();
  reader.fill_dependent_defaults();
  reader.check_relations();
  LoadedConfig loaded = reader.finish();
  loaded.warnings = lines_for(loaded, doubtful_relations(loaded));
  return loaded;
}

}  // namespace

LoadedConfig load_config(std::string_view text, const std::string& path,
                         std::span<const std::string> overrides) {
  ConfigReader reader(path);
  return load(reader, text, overrides);
}

LoadedConfig load_saved_config(std::string_view text, const std::string& path) {
  ConfigReader reader(path, true);
  return load(reader, text, {});
}

ConfigValues saved_values(std::string_view text) {
  ConfigReader reader("", true);
  reader.read_text(text);
  return reader.values();
}

void print_warnings(const LoadedConfig& loaded) {
  for (const std::string& line : loaded.warnings)
    std::fputs(fmt::format("switchyard: {}\n", line).c_str(), stderr);
}

namespace {

void require_none(const std::vector<std::string>& lines) {
  if (!lines.empty()) throw ConfigError(fmt::format("{}", fmt::join(lines, "\n")));
}

}  // namespace

std::vector<std::string> validate_for_ranks(const LoadedConfig& loaded, std::int64_t num_ranks) {
  return lines_for(loaded, broken_relations_for_ranks(loaded, num_ranks));
}

void require_valid_for_ranks(const LoadedConfig& loaded, std::int64_t num_ranks) {
  require_none(validate_for_ranks(loaded, num_ranks));
}

void require_valid_for_vocabulary(const LoadedConfig& loaded, std::int64_t num_tokens) {
  require_none(lines_for(loaded, broken_relations_for_vocabulary(loaded, num_tokens)));
}

}  // namespace switchyard
