#include "launch/config/schema.hpp"

#include <fmt/core.h>

#include "launch/config/value.hpp"
#include "launch/suggestion.hpp"

namespace switchyard {

bool Range::contains(double value) const {
  const bool enough = least_is_open ? value > least : value >= least;
  return enough && (most_is_open ? value < most : value <= most);
}

std::string Range::to_string() const {
  if (least == most) return fmt::format("{}", least);
  std::string text;
  if (least != -std::numeric_limits<double>::infinity())
    text = fmt::format("{} {:.15g}", least_is_open ? "above" : "at least", least);
  if (most == std::numeric_limits<double>::infinity()) return text;
  if (!text.empty()) text += " and ";
  return text + fmt::format("{} {:.15g}", most_is_open ? "below" : "at most", most);
}

std::string_view Key::type_name() const {
  constexpr std::string_view names[] = {
      "integer", "number",           "boolean",       "text",
      "text",    "list of integers", "list of texts", "list of maps",
  };
  return names[field.index()];
}

std::span<const std::string_view> Key::choices() const {
  std::span<const std::string_view> names;
  if (const auto* one = std::get_if<AccessChoice<ChoiceRef>>(&field)) names = one->names;
  if (const auto* list = std::get_if<AccessChoice<ChoiceListRef>>(&field)) names = list->names;
  return names.first(names.size() - num_withheld);
}

const KeyGroup* find_group(std::string_view section, std::string_view name) {
  for (const KeyGroup& group : key_groups()) {
    if (group.section == section && group.name == name) return &group;
  }
  return nullptr;
}

const Key* find_key(std::string_view section, std::string_view name) {
  if (const KeyGroup* group = find_group(section, name)) name = group->value;
  for (const Key& key : schema()) {
    if (key.section == section && key.name == name) return &key;
  }
  return nullptr;
}

std::string current_path(std::string_view path) {
  static constexpr OldName old_names[] = {{"model.attention", "model.mixer"}};
  for (const OldName& old : old_names) {
    if (!path.starts_with(old.path)) continue;
    const std::string_view rest = path.substr(old.path.size());
    if (rest.empty() || rest.front() == '.') return std::string(old.now) + std::string(rest);
  }
  return std::string(path);
}

const Key* find_key(std::string_view given) {
  const std::string path = current_path(given);
  const std::size_t dot = path.find('.');
  if (dot == std::string::npos) return nullptr;
  return find_key(std::string_view(path).substr(0, dot), std::string_view(path).substr(dot + 1));
}

const RetiredKey* find_retired_key(std::string_view path) {
  static constexpr RetiredKey retired[] = {
      {"evaluate.num_batches",
       "is gone, since its meaning depended on the batch; write evaluate.num_sequences, which "
       "counts sequences (0, the default: all of the validation split)"},
  };
  for (const RetiredKey& key : retired)
    if (key.path == path) return &key;
  return nullptr;
}

std::size_t index_of(const Key& key) {
  return static_cast<std::size_t>(&key - schema().data());
}

bool is_section(std::string_view name) {
  for (const Section& section : sections()) {
    if (section.name == name) return true;
  }
  return false;
}

std::string key_suggestion(std::string_view section, std::string_view name) {
  std::vector<std::string_view> candidates;
  if (section.empty()) {
    for (const Section& each : sections()) candidates.push_back(each.name);
  } else {
    for (const Key& key : schema()) {
      if (key.section == section) candidates.push_back(key.name);
    }
  }
  // `steps` for `num_steps`.
  if (!section.empty())
    for (const std::string_view candidate : candidates)
      if (candidate.ends_with(fmt::format("_{}", name)))
        return fmt::format("; did you mean {}.{}?", section, candidate);
  // The very name in another section or group beats a similar one in this.
  const std::string_view last = name.substr(name.rfind('.') + 1);  // npos + 1 is 0
  for (const Key& key : schema()) {
    if (key.name.substr(key.name.rfind('.') + 1) == last)
      return fmt::format("; did you mean {}?", key.path());
  }
  if (const auto near = nearest(name, candidates)) {
    const std::string prefix = section.empty() ? "" : std::string(section) + ".";
    return fmt::format("; did you mean {}{}?", prefix, *near);
  }
  std::vector<std::string_view> names;
  for (const Key& key : schema()) names.push_back(key.name);
  if (const auto near = nearest(name, names)) {
    for (const Key& key : schema()) {
      if (key.name == *near) return fmt::format("; did you mean {}?", key.path());
    }
  }
  return {};
}

std::string unknown_path(std::string_view path) {
  const std::size_t dot = path.find('.');
  if (dot == std::string_view::npos || dot == 0)
    return fmt::format("unknown key{}", key_suggestion("", path));
  const std::string_view section = path.substr(0, dot);
  if (is_section(section))
    return fmt::format("unknown key{}", key_suggestion(section, path.substr(dot + 1)));
  return fmt::format("unknown section {}{}", for_message(section), key_suggestion("", section));
}

}  // namespace switchyard
