// Words of commands that are printed for a person to paste.
#pragma once

#include <string>
#include <string_view>

namespace switchyard {

// The word as bash, zsh and sh (but for control characters, which the last does not know) read it
// back byte by byte: as it is where it holds nothing that a shell takes for more than a letter,
// else in quotes. On one line, whatever it holds.
std::string quote_for_shell(std::string_view word);

// Several words, quoted, with spaces between them.
template <class Words>
std::string quote_all_for_shell(const Words& words) {
  std::string text;
  for (const auto& word : words) {
    if (!text.empty()) text += ' ';
    text += quote_for_shell(word);
  }
  return text;
}

}  // namespace switchyard
