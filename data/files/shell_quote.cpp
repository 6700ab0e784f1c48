#include "data/files/shell_quote.hpp"

#include <fmt/core.h>

#include <algorithm>

namespace switchyard {
namespace {

bool is_plain(char letter) {
  return (letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z') ||
         (letter >= '0' && letter <= '9') ||
         std::string_view("_@%+=:,./-").find(letter) != std::string_view::npos;
}

bool is_control(char letter) {
  const auto code = static_cast<unsigned char>(letter);
  return code < 0x20 || code == 0x7f;
}

}  // namespace

std::string quote_for_shell(std::string_view word) {
  // zsh takes =ls for the path of ls.
  if (!word.empty() && word.front() != '=' && std::all_of(word.begin(), word.end(), is_plain))
    return std::string(word);
  const bool has_control = std::any_of(word.begin(), word.end(), is_control);
  std::string text = has_control ? "$'" : "'";
  for (const char letter : word) {
    if (is_control(letter))
      text += fmt::format("\\x{:02x}", static_cast<unsigned char>(letter));
    else if (has_control && (letter == '\'' || letter == '\\'))
      text += fmt::format("\\{}", letter);
    else if (letter == '\'')
      text += "'\\''";
    else
      text += letter;
  }
  return text + "'";
}

}  // namespace switchyard
