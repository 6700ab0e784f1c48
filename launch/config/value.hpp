// One value between its text and its field: reading with all checks that need this key alone, and
// printing so that it reads back to the same bits.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "launch/config/schema.hpp"

namespace switchyard {

// Reads `text` into the key's field of `config`. Returns what is wrong and what would be right,
// with the field unchanged, or nothing on success. `quoted`: the text stood in quotes, so it is no
// number and no boolean. A list's text is its only element, or the word for an empty list; all that
// a list may be is read by list_value.hpp.
std::optional<std::string> assign_value(Config& config, const Key& key, std::string_view text,
                                        bool quoted = false);

// "expected a whole number": what the key wants, for messages.
std::string expectation(const Key& key);

// The value as YAML on one line; doubles in the shortest form that reads back exactly.
std::string format_value(const Config& config, const Key& key);
// The same without YAML's quotes around a text: what a shell script wants.
std::string plain_value(const Config& config, const Key& key);
// Any text as a YAML scalar on one line, in quotes where it needs them.
std::string quote_yaml(std::string_view text);

bool same_value(const Config& left, const Config& right, const Key& key);

// Offset of the first byte that is not part of well-formed UTF-8.
std::optional<std::size_t> find_bad_utf8(std::string_view text);
// Offset of the first control character other than tab, line feed and carriage return.
std::optional<std::size_t> find_control_character(std::string_view text);

// The text as one line for a message: control characters as \xNN, cut when long.
std::string for_message(std::string_view text);

}  // namespace switchyard
