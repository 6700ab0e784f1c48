// Values that are lists, or maps in a list: from a node of a YAML tree, and from overrides.
//     capture.steps=[1, 10]    model.mixer.1.window=512    model.mixer=[{kind: full}]
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "launch/config/schema.hpp"
#include "launch/config/yaml_tree.hpp"

namespace switchyard {

struct ValueMistake {
  Place place;
  std::string path;     // "model.mixer", or "model.mixer.1.window" of a part
  std::string problem;  // what is wrong, what would be right
};

bool is_list(const Key& key);

// Reads a node into the field of a key that is a list; appends what is wrong, and then leaves the
// field unchanged. Aliases are mistakes already noted.
void assign_list(Config& config, const Key& key, const YamlNode& node,
                 std::vector<ValueMistake>& mistakes);
// The same for the value of an override.
void assign_list_text(Config& config, const Key& key, const std::string& text,
                      std::vector<ValueMistake>& mistakes);

// A part of a list that an override names: "model.mixer.1.window".
struct ListPart {
  const Key* list;
  const Key* element;  // the part's key
  std::size_t index;
};
std::optional<ListPart> find_list_part(std::string_view path);
// Sets a part; index = the length of the list appends an entry of defaults first.
std::optional<std::string> assign_list_part(Config& config, const ListPart& part,
                                            std::string_view text);

}  // namespace switchyard
