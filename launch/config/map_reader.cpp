#include "launch/config/map_reader.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>

#include "launch/home_folder.hpp"
#include "tensor/error.hpp"

namespace switchyard {
namespace {

template <class Number>
std::optional<Number> parse(const YamlNode& node) {
  if (node.kind != YamlNode::Kind::scalar) return std::nullopt;
  Number value{};
  const char* end = node.text.data() + node.text.size();
  const auto [stop, error] = std::from_chars(node.text.data(), end, value);
  if (error != std::errc() || stop != end) return std::nullopt;
  return value;
}

// The value of a node, or what it is instead of one.
std::string shown(const YamlNode& node) {
  return node.kind == YamlNode::Kind::scalar ? for_message(node.text)
                                             : std::string(node.kind_name());
}

}  // namespace

std::optional<double> number_of(const YamlNode& node) {
  return parse<double>(node);
}

void MapReader::throw_mistakes(const std::string& file) {
  if (mistakes_.empty()) return;
  std::stable_sort(mistakes_.begin(), mistakes_.end(), [](const Mistake& a, const Mistake& b) {
    return std::pair(a.place.line, a.place.column) < std::pair(b.place.line, b.place.column);
  });
  std::vector<std::string> lines;
  for (const Mistake& each : mistakes_)
    lines.push_back(
        fmt::format("{}:{}:{}: {}", file, each.place.line, each.place.column, each.text));
  throw ConfigError(fmt::format("{}", fmt::join(lines, "\n")));
}

void MapReader::read_map(const YamlNode& node, const std::string& path, const Readers& readers,
                         const std::vector<std::string>& required) {
  const std::string dotted = path.empty() ? "" : path + ".";
  if (node.kind != YamlNode::Kind::map)
    return mistake(node.place,
                   fmt::format("{}: expected keys with values, got {}", path, node.kind_name()));
  std::vector<std::string_view> names;
  for (const auto& [name, reader] : readers) names.push_back(name);
  std::set<std::string> seen;
  for (const auto& [key, value] : node.entries) {
    const auto found = readers.find(key.text);
    if (found == readers.end()) {
      const auto near = nearest(key.text, names);
      mistake(key.place,
              fmt::format("{}{}: unknown key; use {}{}", dotted, for_message(key.text),
                          fmt::join(names, ", "),
                          near ? fmt::format("; did you mean {}?", *near) : std::string()));
    } else if (!seen.insert(key.text).second) {
      mistake(key.place, fmt::format("{}{}: appears a second time; remove one", dotted, key.text));
    } else if (value.kind != YamlNode::Kind::alias) {
      found->second(value);
    }
  }
  for (const std::string& name : required)
    if (seen.count(name) == 0) mistake(node.place, fmt::format("{}{}: missing", dotted, name));
}

void MapReader::for_each_element(const YamlNode& node, const std::string& path,
                                 const Reader& read) {
  if (node.kind != YamlNode::Kind::list || node.elements.empty())
    return mistake(node.place, fmt::format("{}: expected a list with entries, got {}", path,
                                           node.kind == YamlNode::Kind::list ? "an empty one"
                                                                             : node.kind_name()));
  for (const YamlNode& element : node.elements) read(element);
}

std::optional<double> MapReader::number(const YamlNode& node, const std::string& path,
                                        double least) {
  const auto value = number_of(node);
  if (value && std::isfinite(*value) && *value >= least) return value;
  mistake(node.place,
          fmt::format("{}: expected a number{}, got {}", path,
                      std::isinf(least) ? "" : fmt::format(" of at least {}", least), shown(node)));
  return std::nullopt;
}

std::optional<std::int64_t> MapReader::whole(const YamlNode& node, const std::string& path,
                                             std::int64_t least, std::int64_t most) {
  const auto value = parse<std::int64_t>(node);
  if (value && *value >= least && *value <= most) return value;
  mistake(node.place, fmt::format("{}: expected a whole number from {} to {}, got {}", path, least,
                                  most, shown(node)));
  return std::nullopt;
}

Reader MapReader::text_into(std::string& target, std::string path) {
  return [this, &target, path = std::move(path)](const YamlNode& node) {
    if (node.kind != YamlNode::Kind::scalar || node.text.empty())
      return mistake(node.place,
                     fmt::format("{}: expected a text, got {}", path, node.kind_name()));
    target = node.text;
  };
}

Reader MapReader::path_into(std::string& target, std::string path) {
  return [this, &target, path = std::move(path)](const YamlNode& node) {
    text_into(target, path)(node);
    const HomePath home = with_home_folder(target);
    if (!home.problem.empty())
      return mistake(node.place, fmt::format("{}: {}", path, home.problem));
    target = home.path;
    while (target.size() > 1 && target.back() == '/') target.pop_back();
  };
}

Reader MapReader::flag_into(bool& target, std::string path) {
  return [this, &target, path = std::move(path)](const YamlNode& node) {
    if (node.text != "true" && node.text != "false")
      return mistake(node.place,
                     fmt::format("{}: expected true or false, got {}", path, shown(node)));
    target = node.text == "true";
  };
}

Reader MapReader::number_into(double& target, std::string path, double least) {
  return [this, &target, path = std::move(path), least](const YamlNode& node) {
    if (const auto value = number(node, path, least)) target = *value;
  };
}

Reader MapReader::whole_into(std::int64_t& target, std::string path, std::int64_t least,
                             std::int64_t most) {
  return [this, &target, path = std::move(path), least, most](const YamlNode& node) {
    if (const auto value = whole(node, path, least, most)) target = *value;
  };
}

Reader MapReader::wholes_into(std::vector<std::int64_t>& target, std::string path,
                              std::int64_t least, std::int64_t most) {
  return [this, &target, path = std::move(path), least, most](const YamlNode& node) {
    for_each_element(node, path, [&](const YamlNode& element) {
      const auto value = whole(element, path, least, most);
      if (!value) return;
      if (std::count(target.begin(), target.end(), *value) > 0)
        mistake(element.place, fmt::format("{}: {} stands twice", path, *value));
      target.push_back(*value);
    });
  };
}

}  // namespace switchyard
