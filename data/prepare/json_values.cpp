#include "data/prepare/json_values.hpp"

#include <string_view>
#include <utility>

namespace switchyard {

namespace {

bool is_space(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

bool ends_scalar(char c) {
  return is_space(c) || std::string_view(",[]{}").find(c) != std::string_view::npos;
}

}  // namespace

JsonValues::JsonValues(InputFile& file, std::string first, std::int64_t max_bytes)
    : file_(file), max_bytes_(max_bytes), chunk_(std::move(first)) {}

bool JsonValues::refill() {
  while (at_ == chunk_.size()) {
    if (last_ == InputFile::Line::end || last_ == InputFile::Line::damaged) return false;
    last_ = file_.next_line(chunk_, max_bytes_);
    at_ = 0;
    if (last_ == InputFile::Line::end || last_ == InputFile::Line::damaged) chunk_.clear();
  }
  return true;
}

void JsonValues::advance() {
  if (chunk_[at_++] == '\n') ++line_;
}

// To the first character of the next value. False: there is none.
bool JsonValues::find_begin() {
  for (; refill(); advance()) {
    const char c = here();
    if (is_space(c) || c == ',') continue;
    if (looks_for_object_ && c != '{') continue;
    looks_for_object_ = false;
    const bool opens = c == '[' && !has_begun_;
    const bool closes = c == ']' && is_in_array_;
    has_begun_ = true;
    if (opens || closes)
      is_in_array_ = opens;
    else
      return true;
  }
  return false;
}

JsonValues::Found JsonValues::next(std::string& value) {
  value.clear();
  if (!find_begin()) return last_ == InputFile::Line::damaged ? Found::damaged : Found::end;
  value_line_ = line_;
  const char c = here();
  const Found found = c == '{' || c == '[' || c == '"' ? take(value) : take_scalar(value);
  looks_for_object_ = found == Found::broken;
  return found;
}

// An object, an array or a string.
JsonValues::Found JsonValues::take(std::string& value) {
  std::int64_t depth = 0;
  bool is_in_string = false;
  bool is_escaped = false;
  bool is_too_long = false;
  for (; refill(); advance()) {
    const char c = here();
    if (std::ssize(value) < max_bytes_)
      value.push_back(c);
    else
      is_too_long = true;
    if (is_in_string) {
      if (c == '\n') return Found::broken;
      if (c == '"' && !is_escaped) is_in_string = false;
      is_escaped = c == '\\' && !is_escaped;
      if (is_in_string) continue;
    } else if (c == '"') {
      is_in_string = true;
      continue;
    } else if (c == '{' || c == '[') {
      ++depth;
    } else if (c == '}' || c == ']') {
      --depth;
    }
    if (depth == 0) {
      advance();
      return is_too_long ? Found::too_long : Found::value;
    }
  }
  return last_ == InputFile::Line::damaged ? Found::damaged : Found::broken;
}

// A number, a word, or what is no JSON at all.
JsonValues::Found JsonValues::take_scalar(std::string& value) {
  if (ends_scalar(here())) {  // a bracket that closes nothing
    advance();
    return Found::broken;
  }
  for (; refill() && !ends_scalar(here()); advance())
    if (std::ssize(value) < max_bytes_) value.push_back(here());
  return Found::value;
}

}  // namespace switchyard
