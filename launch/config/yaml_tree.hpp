// A YAML document as a tree that remembers, for each part, the line and column and whether a scalar
// stood in quotes. It is the only file that knows the YAML library. Built from the parser's events
// and not from its nodes, which drop repeated keys and expand aliases without a word.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace switchyard {

// Lines and columns count from 1, columns in bytes.
struct Place {
  int line = 1;
  int column = 1;
};

struct Mistake {
  Place place;
  std::string text;  // "key: what is wrong, what would be right"
};

struct YamlEntry;

struct YamlNode {
  // An alias is a mistake already noted; its value is unknown.
  enum class Kind : std::uint8_t { null, scalar, list, map, alias };
  Kind kind = Kind::null;
  Place place;
  std::string text;                // of a scalar
  bool quoted = false;             // in quotes or a block scalar
  std::vector<YamlEntry> entries;  // of a map, in file order, repeats included
  std::vector<YamlNode> elements;  // of a list

  std::string_view kind_name() const;  // "nothing", "a value", "a list", "a map", "an alias"
};

struct YamlEntry {
  YamlNode key;
  YamlNode value;
};

// The one document of the text; the kind is null when the text holds none. Whatever YAML or this
// program does not allow (syntax, anchors, aliases, tags, several documents, bytes that are not
// UTF-8 or are control characters) goes to `mistakes`.
YamlNode parse_yaml(std::string_view text, std::vector<Mistake>& mistakes);

}  // namespace switchyard
