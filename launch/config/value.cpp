#include "launch/config/value.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <utility>

#include "launch/home_folder.hpp"
#include "launch/suggestion.hpp"

namespace switchyard {
namespace {

using Problem = std::optional<std::string>;

// A number of `Number` that fills the whole text. A leading plus sign is legal in YAML.
template <class Number>
std::errc read_number(std::string_view text, Number& number) {
  if (text.size() > 1 && text.front() == '+' && text[1] != '-') text.remove_prefix(1);
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  if (error == std::errc::invalid_argument || stop != end) return std::errc::invalid_argument;
  return error;
}

Problem out_of_range(const Key& key, std::string_view text) {
  return fmt::format("must be {}, got {}", key.range.to_string(), text);
}

Problem quoted_problem(const Key& key, std::string_view text) {
  return fmt::format("{}, got the quoted text \"{}\"; remove the quotes", expectation(key),
                     for_message(text));
}

// What to write instead of 1e6 or 3.0 for a whole number.
std::string whole_number_advice(std::string_view text) {
  double value = 0;
  if (read_number(text, value) != std::errc{} || value != std::floor(value)) return {};
  if (std::abs(value) > 9e15) return {};
  return fmt::format("; write {}", static_cast<std::int64_t>(value));
}

// The number of a name among the choices of a key.
std::optional<std::size_t> index_of_choice(const Key& key, std::string_view text) {
  const std::span<const std::string_view> choices = key.choices();
  const auto found = std::find(choices.begin(), choices.end(), text);
  if (found == choices.end()) return std::nullopt;
  return static_cast<std::size_t>(found - choices.begin());
}

// Where a word belongs that was given to a number of a group: "auto" for parallel.context.
std::string choice_advice(const Key& key, std::string_view text) {
  const std::size_t dot = key.name.find('.');
  if (dot == std::string_view::npos) return {};
  for (const Key& other : schema())
    if (other.section == key.section && other.name.starts_with(key.name.substr(0, dot + 1)) &&
        index_of_choice(other, text))
      return fmt::format("; {} is a value of {}", text, other.path());
  return {};
}

Problem assign(std::int64_t& field, const Key& key, std::string_view text, bool quoted) {
  if (quoted) return quoted_problem(key, text);
  std::int64_t value = 0;
  const std::errc error = read_number(text, value);
  if (error == std::errc::result_out_of_range) {
    return fmt::format("{} of at most 64 bits, got {}", expectation(key), for_message(text));
  }
  if (error != std::errc{}) {
    return fmt::format("{}, got {}{}{}", expectation(key), for_message(text),
                       whole_number_advice(text), choice_advice(key, text));
  }
  if (!key.range.contains(static_cast<double>(value))) return out_of_range(key, text);
  field = value;
  return {};
}

Problem assign(double& field, const Key& key, std::string_view text, bool quoted) {
  if (quoted) return quoted_problem(key, text);
  double value = 0;
  const std::errc error = read_number(text, value);
  if (error == std::errc::result_out_of_range) {
    return fmt::format("{} that fits a double, got {}", expectation(key), for_message(text));
  }
  if (error != std::errc{}) {
    return fmt::format("{}, got {}", expectation(key), for_message(text));
  }
  if (!std::isfinite(value)) return fmt::format("must be finite, got {}", text);
  if (!key.range.contains(value)) return out_of_range(key, text);
  field = value;
  return {};
}

Problem assign(bool& field, const Key& key, std::string_view text, bool quoted) {
  if (quoted) return quoted_problem(key, text);
  if (text != "true" && text != "false") {
    std::string lower(text);
    std::transform(lower.begin(), lower.end(), lower.begin(),
                   [](unsigned char letter) { return static_cast<char>(std::tolower(letter)); });
    std::string advice;
    if (lower == "true" || lower == "yes" || lower == "on" || lower == "1") advice = "; write true";
    if (lower == "false" || lower == "no" || lower == "off" || lower == "0") {
      advice = "; write false";
    }
    return fmt::format("{}, got {}{}", expectation(key), for_message(text), advice);
  }
  field = text == "true";
  return {};
}

Problem text_problem(const Key& key, std::string_view text) {
  if (text.empty()) return fmt::format("{}, got an empty one", expectation(key));
  if (find_bad_utf8(text)) return "is not UTF-8";
  if (find_control_character(text) || text.find_first_of("\t\n\r") != std::string_view::npos) {
    return fmt::format("must be one line without control characters, got {}", for_message(text));
  }
  return {};
}

Problem assign(std::string& field, const Key& key, std::string_view text, bool /*quoted*/) {
  if (Problem problem = text_problem(key, text)) return problem;
  if (!key.is_path()) {
    field = text;
    return {};
  }
  HomePath path = with_home_folder(text);
  if (!path.problem.empty()) return path.problem;
  field = std::move(path.path);
  return {};
}

Problem read_choice(std::size_t& value, const Key& key, std::string_view text) {
  if (Problem problem = text_problem(key, text)) return problem;
  if (const auto index = index_of_choice(key, text)) {
    value = *index;
    return {};
  }
  return unknown_choice(for_message(text), key.choices());
}

Problem assign(const ChoiceRef& field, const Key& key, std::string_view text, bool /*quoted*/) {
  std::size_t value = 0;
  if (Problem problem = read_choice(value, key, text)) return problem;
  field.set(value);
  return {};
}

Problem assign(const ChoiceListRef& field, const Key& key, std::string_view text, bool quoted) {
  ChoiceListRef::List list;
  if (quoted || key.empty_word.empty() || text != key.empty_word)
    if (Problem problem = read_choice(list.emplace_back(), key, text)) return problem;
  field.set(list);
  return {};
}

// "10..12": the whole numbers from 10 to 12.
Problem assign_range(std::vector<std::int64_t>& field, const Key& key, std::string_view text,
                     std::size_t dots) {
  constexpr std::int64_t most_numbers = 10'000;
  if (dots == 0 || dots + 2 == text.size())
    return fmt::format("a range has two ends, as 10..12; got {}", for_message(text));
  std::int64_t first = 0;
  std::int64_t last = 0;
  for (const auto& [number, part] :
       {std::pair{&first, text.substr(0, dots)}, std::pair{&last, text.substr(dots + 2)}})
    if (Problem problem = assign(*number, key, part, false)) return problem;
  if (last < first) return fmt::format("a range goes upwards: {}..{}", last, first);
  if (last - first >= most_numbers)
    return fmt::format("a range of more than {} numbers: {}", most_numbers, text);
  field.clear();
  for (std::int64_t number = first; number <= last; ++number) field.push_back(number);
  return {};
}

// A list of one, or with the word for it the empty list. Whole numbers may be a range.
template <class Element>
Problem assign(std::vector<Element>& field, const Key& key, std::string_view text, bool quoted) {
  if (!quoted && !key.empty_word.empty() && text == key.empty_word) {
    field.clear();
    return {};
  }
  if constexpr (std::is_same_v<Element, std::int64_t>)
    if (const std::size_t dots = text.find(".."); !quoted && dots != std::string_view::npos)
      return assign_range(field, key, text, dots);
  Element element{};
  if (Problem problem = assign(element, key, text, quoted)) return problem;
  field = {element};
  return {};
}

Problem assign(std::vector<MixerConfig>& /*field*/, const Key& key, std::string_view text,
               bool /*quoted*/) {
  return fmt::format("{}, got {}", expectation(key), for_message(text));
}

// Reads back as a plain YAML scalar with the same text.
bool is_plain(std::string_view text) {
  constexpr std::string_view safe =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-+";
  if (text.empty() || text.find_first_not_of(safe) != std::string_view::npos) return false;
  // Not a list mark, a document mark or one of the words that mean no value.
  return text.front() != '-' && text != "..." && text != "null" && text != "Null" && text != "NULL";
}

}  // namespace

std::string expectation(const Key& key) {
  if (!key.choices().empty())
    return fmt::format("expected one of {}", fmt::join(key.choices(), ", "));
  constexpr std::string_view wanted[] = {
      "a whole number",          "a number",        "true or false",           "a text", "a text",
      "a list of whole numbers", "a list of texts", "a map or a list of maps",
  };
  return fmt::format("expected {}{}{}", wanted[key.field.index()],
                     key.empty_word.empty() ? "" : " or ", key.empty_word);
}

std::optional<std::string> assign_value(Config& config, const Key& key, std::string_view text,
                                        bool quoted) {
  return std::visit([&](auto access) { return assign(access(config), key, text, quoted); },
                    key.field);
}

namespace {

std::string format_field(const std::string& text, const Key& /*key*/) {
  return quote_yaml(text);
}

std::string format_field(const ChoiceRef& choice, const Key& /*key*/) {
  return quote_yaml(choice.names()[choice.get()]);
}

template <class Number>
std::string format_field(const Number& value, const Key& /*key*/) {
  return fmt::format("{}", value);
}

// One map of a list, as the keys of its elements see it: the first of them, and of the others those
// that are not left at their defaults.
std::string format_field(const MixerConfig& element, const Key& key) {
  Config config;
  config.model.mixer = {element};
  Config defaults;
  std::vector<std::string> values;
  for (const Key& each : key.elements)
    if (&each == &key.elements.front() || !same_value(config, defaults, each))
      values.push_back(fmt::format("{}: {}", each.name, format_value(config, each)));
  return fmt::format("{{{}}}", fmt::join(values, ", "));
}

std::string format_elements(const std::vector<std::string>& elements, const Key& key) {
  if (elements.empty() && !key.empty_word.empty()) return std::string(key.empty_word);
  return fmt::format("[{}]", fmt::join(elements, ", "));
}

std::string format_field(const ChoiceListRef& choices, const Key& key) {
  std::vector<std::string> elements;
  for (const std::size_t choice : choices.get())
    elements.push_back(quote_yaml(choices.names()[choice]));
  return format_elements(elements, key);
}

template <class Element>
std::string format_field(const std::vector<Element>& list, const Key& key) {
  std::vector<std::string> elements;
  for (const Element& element : list) elements.push_back(format_field(element, key));
  return format_elements(elements, key);
}

}  // namespace

std::string format_value(const Config& config, const Key& key) {
  // The accessors give a mutable field; a copy keeps the caller's Config const.
  Config copy = config;
  return std::visit([&](auto access) { return format_field(access(copy), key); }, key.field);
}

std::string plain_value(const Config& config, const Key& key) {
  const auto* text = std::get_if<Access<std::string>>(&key.field);
  Config copy = config;
  return text == nullptr ? format_value(config, key) : (*text)(copy);
}

bool same_value(const Config& left, const Config& right, const Key& key) {
  Config a = left;
  Config b = right;
  return std::visit([&](auto access) { return access(a) == access(b); }, key.field);
}

std::string quote_yaml(std::string_view text) {
  if (is_plain(text)) return std::string(text);
  std::string quoted = "\"";
  for (const char letter : text) {
    if (letter == '"' || letter == '\\') quoted += '\\';
    quoted += letter;
  }
  return quoted + '"';
}

std::optional<std::size_t> find_bad_utf8(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  std::size_t i = 0;
  while (i < text.size()) {
    const unsigned first = byte(i);
    const std::size_t length = first < 0x80                     ? 1
                               : first >= 0xC2 && first <= 0xDF ? 2
                               : first >= 0xE0 && first <= 0xEF ? 3
                               : first >= 0xF0 && first <= 0xF4 ? 4
                                                                : 0;
    if (length == 0 || i + length > text.size()) return i;
    for (std::size_t k = 1; k < length; ++k) {
      if ((byte(i + k) & 0xC0U) != 0x80U) return i;
    }
    // Overlong forms, surrogates and numbers above U+10FFFF (Unicode standard, table 3-7).
    const unsigned second = length > 2 ? byte(i + 1) : 0;
    if ((first == 0xE0 && second < 0xA0) || (first == 0xED && second > 0x9F) ||
        (first == 0xF0 && second < 0x90) || (first == 0xF4 && second > 0x8F)) {
      return i;
    }
    i += length;
  }
  return std::nullopt;
}

std::optional<std::size_t> find_control_character(std::string_view text) {
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if ((byte < 0x20 && byte != '\t' && byte != '\n' && byte != '\r') || byte == 0x7F) return i;
  }
  return std::nullopt;
}

std::string for_message(std::string_view text) {
  constexpr std::size_t longest = 60;
  std::string line;
  for (const char letter : text) {
    if (line.size() >= longest && (static_cast<unsigned char>(letter) & 0xC0U) != 0x80U) {
      return line + "...";
    }
    const auto byte = static_cast<unsigned char>(letter);
    if (byte < 0x20 || byte == 0x7F) {
      line += fmt::format("\\x{:02x}", byte);
    } else {
      line += letter;
    }
  }
  return line;
}

}  // namespace switchyard
