#include "launch/config/document.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "launch/config/schema.hpp"
#include "launch/config/value.hpp"

namespace switchyard {
namespace {

constexpr const char* introduction =
    R"(<!-- Written by `switchyard config --document` from launch/config/schema.cpp; do not edit. -->
# Configuration

A run is described by one YAML file of sections with keys. A key that is left out has its default;
`run.output` and `data.path` have none. `switchyard config FILE` checks a file and prints it
complete, and `switchyard config FILE --origins` also tells where each value comes from.

## Overrides

Every command that takes a configuration takes overrides behind it:

    switchyard train configs/tiny.yaml train.num_steps=1000 optimizer.learning_rate=3e-4

The value is taken as it stands, without quotes of its own. The last of several for one key counts,
and an override wins over the file. A path that begins with `~/` lies in the home folder, in the file,
behind an override and in options of commands.

A key with a dot in its name, such as `rope_scaling.factor`, stands in a map of its own in the file.
A plain value in the map's place is short for one of its keys: `rope_scaling: linear` sets
`rope_scaling.kind`. A list is written in brackets, in the file and behind an override; of a list of
maps an override can also set one value, the entries counted from 0:

    switchyard train long.yaml 'model.mixer=[{kind: window, window: 512}, {kind: full}]'
    switchyard train long.yaml model.mixer.0.window=1024

## Mistakes

All mistakes of a file and of the overrides are told at once, before anything is allocated, and the
program ends with exit code 2:

    tiny.yaml:9:3: model.n_heads: unknown key; did you mean model.num_heads?
    tiny.yaml:14:10: experts.top_k: expected a whole number, got 1.5
    command line: train.num_steps=ten: expected a whole number, got ten

Columns count bytes from 1. A number in quotes is a text and therefore refused where a number is
expected. Of YAML, anchors, aliases, merge keys, tags and several documents in a file are refused. A
key may stand only once.
)";

std::string legal_values(const Key& key);

// "maps of `kind` (`full`, `window`), `window` (...)"
std::string legal_elements(const Key& key) {
  std::vector<std::string> parts;
  for (const Key& each : key.elements)
    parts.push_back(fmt::format("`{}` ({})", each.name, legal_values(each)));
  return fmt::format("maps of {}", fmt::join(parts, ", "));
}

std::string legal_values(const Key& key) {
  if (!key.elements.empty()) return legal_elements(key);
  if (!key.empty_word.empty()) {
    Key listed = key;
    listed.empty_word = {};
    const std::string values = legal_values(listed);
    return fmt::format("`{}`{}{}", key.empty_word, values == "any" ? "" : ", ",
                       values == "any" ? "" : values);
  }
  if (!key.choices().empty()) {
    std::vector<std::string> quoted;
    for (const std::string_view choice : key.choices())
      quoted.push_back(fmt::format("`{}`", choice));
    return fmt::format("{}", fmt::join(quoted, ", "));
  }
  if (key.type_name() == "boolean") return "`true`, `false`";
  const std::string range = key.range.to_string();
  return range.empty() ? "any" : range;
}

std::string default_value(const Key& key) {
  if (!key.default_text.empty()) return std::string(key.default_text);
  return key.is_required ? "required" : fmt::format("`{}`", format_value(Config{}, key));
}

}  // namespace

std::string configuration_document() {
  std::string text = introduction;
  for (const Section& section : sections()) {
    text += fmt::format("\n## {}\n\n{}\n\n", section.name, section.description);
    text += "| Key | Type | Unit | Legal values | Default | Meaning |\n|---|---|---|---|---|---|\n";
    for (const Key& key : schema()) {
      if (key.section != section.name) continue;
      text += fmt::format("| `{}` | {} | {} | {} | {} | {} |\n", key.name, key.type_name(),
                          key.unit.empty() ? "–" : key.unit, legal_values(key), default_value(key),
                          key.description);
    }
  }
  return text;
}

}  // namespace switchyard
