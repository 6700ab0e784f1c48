#include "data/files/utf8.hpp"

#include <algorithm>

namespace switchyard {

namespace {

struct Character {
  std::size_t length;  // bytes that belong together, at least 1
  bool is_valid;
  bool is_cut;  // valid so far, but the text ends inside it
};

// What the lead byte allows: the number of bytes and the range of the second one.
struct Lead {
  std::size_t length = 0;  // 0: no character begins so
  unsigned char low = 0x80, high = 0xBF;
};

Lead lead_of(unsigned char byte) {
  if (byte < 0x80) return {1};
  if (byte < 0xC2 || byte > 0xF4) return {};
  if (byte < 0xE0) return {2};
  if (byte == 0xE0) return {3, 0xA0, 0xBF};
  if (byte == 0xED) return {3, 0x80, 0x9F};
  if (byte < 0xF0) return {3};
  if (byte == 0xF0) return {4, 0x90, 0xBF};
  if (byte == 0xF4) return {4, 0x80, 0x8F};
  return {4};
}

Character first_character(std::string_view text) {
  const Lead lead = lead_of(static_cast<unsigned char>(text[0]));
  if (lead.length == 0) return {1, false, false};
  for (std::size_t i = 1; i < lead.length; ++i) {
    if (i == text.size()) return {i, false, true};
    const auto byte = static_cast<unsigned char>(text[i]);
    const unsigned char low = i == 1 ? lead.low : 0x80;
    const unsigned char high = i == 1 ? lead.high : 0xBF;
    if (byte < low || byte > high) return {i, false, false};
  }
  return {lead.length, true, false};
}

}  // namespace

std::size_t first_invalid_utf8(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    const Character character = first_character(text.substr(at));
    if (!character.is_valid) return at;
    at += character.length;
  }
  return text.size();
}

std::size_t complete_utf8_prefix(std::string_view text) {
  // A character has at most four bytes, so a cut one begins in the last three.
  for (std::size_t back = 1; back <= std::min<std::size_t>(3, text.size()); ++back) {
    const std::size_t at = text.size() - back;
    const Character character = first_character(text.substr(at));
    if (character.is_cut && character.length == back) return at;
  }
  return text.size();
}

std::string sanitized_utf8(std::string_view text) {
  std::string result;
  while (!text.empty()) {
    const Character character = first_character(text);
    result += character.is_valid ? text.substr(0, character.length) : replacement_character;
    text.remove_prefix(character.length);
  }
  return result;
}

}  // namespace switchyard
