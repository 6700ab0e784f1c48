// The letters that GPT-2's tokenizers write for bytes, so that every token of a vocabulary is a
// printable text: 188 printable bytes of Latin-1 stand for themselves, the other 68 are numbered
// from U+0100 on (source: bytes_to_unicode() of GPT-2's encoder.py). A space is U+0120, a line end
// U+010A.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace switchyard::bpe {

std::string letters_of_bytes(std::string_view bytes);
// None where a character stands for no byte.
std::optional<std::string> bytes_of_letters(std::string_view letters);

}  // namespace switchyard::bpe
