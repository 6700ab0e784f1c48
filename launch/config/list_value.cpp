#include "launch/config/list_value.hpp"

#include <fmt/core.h>

#include <charconv>
#include <set>

#include "launch/config/value.hpp"
#include "launch/suggestion.hpp"
#include "tensor/error.hpp"

namespace switchyard {
namespace {

constexpr std::size_t most_elements = 10'000;

std::string element_path(const Key& key, std::size_t index) {
  return fmt::format("{}.{}", key.path(), index);
}

const Key* find_element(const Key& list, std::string_view name) {
  for (const Key& key : list.elements) {
    if (key.name == name) return &key;
  }
  return nullptr;
}

std::string element_suggestion(const Key& list, std::string_view name) {
  std::vector<std::string_view> candidates;
  for (const Key& key : list.elements) candidates.push_back(key.name);
  const auto near = nearest(name, candidates);
  return near ? fmt::format("; did you mean {}?", *near) : "";
}

// One map of a list. What is not set has its default.
class ElementReader {
 public:
  ElementReader(const Key& list, std::string path, std::vector<ValueMistake>& mistakes)
      : list_(list), path_(std::move(path)), mistakes_(mistakes) {
    scratch_.model.mixer = {{}};
  }

  MixerConfig read(const YamlNode& node) {
    if (node.kind != YamlNode::Kind::map) {
      if (node.kind != YamlNode::Kind::alias)
        mistakes_.push_back(
            {node.place, path_,
             fmt::format("expected a map of keys and values, got {}", node.kind_name())});
      return {};
    }
    for (const auto& [name, value] : node.entries) read_entry(name, value);
    return scratch_.model.mixer.front();
  }

 private:
  void mistake(Place place, std::string path, std::string problem) {
    mistakes_.push_back({place, std::move(path), std::move(problem)});
  }

  void read_entry(const YamlNode& name, const YamlNode& value) {
    const std::string path = fmt::format("{}.{}", path_, for_message(name.text));
    const Key* key = find_element(list_, name.text);
    if (name.kind != YamlNode::Kind::scalar || key == nullptr)
      return mistake(name.place, path, "unknown key" + element_suggestion(list_, name.text));
    if (!seen_.insert(name.text).second)
      return mistake(name.place, path, "appears a second time; remove one");
    if (value.kind == YamlNode::Kind::alias) return;
    if (value.kind != YamlNode::Kind::scalar)
      return mistake(value.place, path,
                     fmt::format("{}, got {}", expectation(*key), value.kind_name()));
    if (const auto problem = assign_value(scratch_, *key, value.text, value.quoted))
      mistake(value.place, path, *problem);
  }

  const Key& list_;
  std::string path_;
  std::vector<ValueMistake>& mistakes_;
  Config scratch_;  // its one entry is the one being read
  std::set<std::string> seen_;
};

void read_elements(std::vector<MixerConfig>& field, const Key& key,
                   const std::vector<YamlNode>& elements, std::vector<ValueMistake>& mistakes) {
  for (std::size_t i = 0; i < elements.size(); ++i)
    field.push_back(ElementReader(key, element_path(key, i), mistakes).read(elements[i]));
}

// The list that the key reaches.
template <class Element>
std::vector<Element> list_of(Config& config, const Key& key) {
  return std::get<Access<std::vector<Element>>>(key.field)(config);
}
template <>
std::vector<std::size_t> list_of(Config& config, const Key& key) {
  return std::get<AccessChoice<ChoiceListRef>>(key.field)(config).get();
}

template <class Element>
void read_elements(std::vector<Element>& field, const Key& key,
                   const std::vector<YamlNode>& elements, std::vector<ValueMistake>& mistakes) {
  // Each is read as a list of its own, of one or of a range; the word for an empty list is none of
  // them.
  Key single = key;
  single.empty_word = {};
  for (std::size_t i = 0; i < elements.size(); ++i) {
    const YamlNode& node = elements[i];
    if (node.kind == YamlNode::Kind::alias) continue;
    Config scratch;
    if (node.kind != YamlNode::Kind::scalar) {
      mistakes.push_back(
          {node.place, element_path(key, i),
           fmt::format("{}, one of its elements is {}", expectation(single), node.kind_name())});
    } else if (const auto problem = assign_value(scratch, single, node.text, node.quoted)) {
      mistakes.push_back({node.place, element_path(key, i), *problem});
    } else {
      const std::vector<Element> read = list_of<Element>(scratch, key);
      field.insert(field.end(), read.begin(), read.end());
    }
  }
}

template <class List>
void assign_nodes(List& field, const Key& key, const YamlNode& node,
                  std::vector<ValueMistake>& mistakes) {
  const std::size_t num_before = mistakes.size();
  List list;
  if (node.elements.size() > most_elements) {
    mistakes.push_back(
        {node.place, key.path(),
         fmt::format("has {} elements, more than {}", node.elements.size(), most_elements)});
  } else if (node.elements.empty() && (!key.elements.empty() || !key.empty_word.empty())) {
    mistakes.push_back({node.place, key.path(),
                        key.elements.empty()
                            ? fmt::format("is empty; write {}", key.empty_word)
                            : fmt::format("{}, got an empty list", expectation(key))});
  } else {
    read_elements(list, key, node.elements, mistakes);
  }
  if (mistakes.size() == num_before) field = std::move(list);
}

template <class Value>
void assign_nodes_or_expect(Value&& field, const Key& key, const YamlNode& node,
                            std::vector<ValueMistake>& mistakes) {
  using Type = std::remove_cvref_t<Value>;
  if constexpr (std::is_same_v<Type, ChoiceListRef>) {
    ChoiceListRef::List list = field.get();
    assign_nodes(list, key, node, mistakes);
    field.set(list);
  } else if constexpr (requires { field.front(); } && !std::is_same_v<Type, std::string>) {
    assign_nodes(field, key, node, mistakes);
  } else {
    expect(false, "a key that is a list: " + key.path());
  }
}

}  // namespace

bool is_list(const Key& key) {
  return key.type_name().starts_with("list");
}

void assign_list(Config& config, const Key& key, const YamlNode& node,
                 std::vector<ValueMistake>& mistakes) {
  switch (node.kind) {
    case YamlNode::Kind::alias:
      return;
    case YamlNode::Kind::scalar:
      if (const auto problem = assign_value(config, key, node.text, node.quoted))
        mistakes.push_back({node.place, key.path(), *problem});
      return;
    case YamlNode::Kind::map:
      if (!key.elements.empty()) {  // one map is a list of one
        YamlNode list = node;
        list.kind = YamlNode::Kind::list;
        list.entries.clear();
        list.elements = {node};
        return assign_list(config, key, list, mistakes);
      }
      [[fallthrough]];
    case YamlNode::Kind::null:
      mistakes.push_back(
          {node.place, key.path(), fmt::format("{}, got {}", expectation(key), node.kind_name())});
      return;
    case YamlNode::Kind::list:
      std::visit([&](auto access) { assign_nodes_or_expect(access(config), key, node, mistakes); },
                 key.field);
      return;
  }
}

void assign_list_text(Config& config, const Key& key, const std::string& text,
                      std::vector<ValueMistake>& mistakes) {
  std::vector<Mistake> syntax;
  const YamlNode node = parse_yaml(text, syntax);
  for (const Mistake& each : syntax) mistakes.push_back({each.place, key.path(), each.text});
  if (syntax.empty()) assign_list(config, key, node, mistakes);
}

std::optional<ListPart> find_list_part(std::string_view given) {
  const std::string current = current_path(given);
  const std::string_view path = current;
  for (const Key& key : schema()) {
    if (key.elements.empty() || !path.starts_with(key.path() + ".")) continue;
    const std::string_view rest = path.substr(key.path().size() + 1);
    const std::size_t dot = rest.find('.');
    if (dot == std::string_view::npos || dot == 0) return std::nullopt;
    std::size_t index = 0;
    const auto [stop, error] = std::from_chars(rest.data(), rest.data() + dot, index);
    const Key* element = find_element(key, rest.substr(dot + 1));
    if (error != std::errc{} || stop != rest.data() + dot || element == nullptr)
      return std::nullopt;
    return ListPart{&key, element, index};
  }
  return std::nullopt;
}

std::optional<std::string> assign_list_part(Config& config, const ListPart& part,
                                            std::string_view text) {
  std::vector<MixerConfig>& list =
      std::get<Access<std::vector<MixerConfig>>>(part.list->field)(config);
  if (part.index > list.size() || part.index >= most_elements)
    return fmt::format("{} has {} entr{}; the next is {}", part.list->path(), list.size(),
                       list.size() == 1 ? "y" : "ies", element_path(*part.list, list.size()));
  Config scratch;
  scratch.model.mixer = {part.index < list.size() ? list[part.index] : MixerConfig{}};
  if (auto problem = assign_value(scratch, *part.element, text)) return problem;
  if (part.index == list.size()) list.emplace_back();
  list[part.index] = scratch.model.mixer.front();
  return std::nullopt;
}

}  // namespace switchyard
